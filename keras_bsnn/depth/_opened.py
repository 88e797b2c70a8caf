"""The layers of a stack one by one: copies, and what happens to them."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _parts
from keras_bsnn.depth._layers import StackedLayers
from keras_bsnn.depth._template import ordered


class OpenedLayers(StackedLayers):
    """The part of `DepthStack` that gives and takes its layers."""

    def layer_at(self, index: int) -> keras.Layer:
        """Returns a standalone copy of one layer, with its weights.

        Args:
            index: integer, the position of the layer; -1 is the last.

        Raises:
            ValueError: the stack is not built.
            IndexError: there is no such layer.
        """
        self._check_built()
        if not -self.depth <= index < self.depth:
            raise IndexError(
                f"`index` must be in [{-self.depth}, {self.depth}). "
                f"Received: index={index}"
            )
        layer = self._built.template.new(f"{self.block.name}_{index % self.depth}")
        for variable, stack in zip(ordered(layer), self._built.stacks, strict=True):
            variable.assign(_backend.read(stack)[index])
        return layer

    def each_layer(self) -> Iterator[keras.Layer]:
        """Yields the layers in turn: one standalone layer, with the weights of each.

        What changes these weights changes the stack, once the last layer was seen.

        Raises:
            ValueError: the stack is not built.
        """
        self._check_built()
        layer = self._built.traveller
        stacks = [np.array(ops.convert_to_numpy(s)) for s in self._built.stacks]
        for i in range(self.depth):
            for variable, stack in zip(ordered(layer), stacks, strict=True):
                variable.assign(stack[i])
            yield layer
            for variable, stack in zip(ordered(layer), stacks, strict=True):
                stack[i] = ops.convert_to_numpy(variable)
        for variable, stack in zip(self._built.stacks, stacks, strict=True):
            variable.assign(stack)

    def variables_with(self, layers: Iterable[keras.Layer]) -> list[tuple]:
        """Returns pairs of a weight and of what it is in layers like the block.

        Args:
            layers: `depth` built layers like the block.

        Returns:
            List of pairs: a variable of this stack, and a tuple of those of the layers
            that stand along its axis of depth.

        Raises:
            ValueError: the stack is not built, or they are not as many.
        """
        self._check_built()
        variables = [*zip(*map(ordered, layers), strict=True)]
        if variables and len(variables[0]) != self.depth:
            raise ValueError(
                f"`layers` must be as many as those of the stack, depth={self.depth}. "
                f"Received: {len(variables[0])} layers"
            )
        return [*zip(self._built.stacks, variables, strict=True)]

    def parts(self) -> Iterator[_parts.Part]:
        """Yields the parts of the block, with the weights of all layers.

        Raises:
            ValueError: the stack is not built.
        """
        self._check_built()
        stack_of = self._built.stack_of()
        for part in _parts.parts(self.block):
            weights = [stack_of[id(weight)] for weight in part.weights]
            yield part._replace(weights=weights).within(self.name, self.depth)
