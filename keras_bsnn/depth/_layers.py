"""The layers of a stack: their weights, along an axis of depth, and copies of them."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import keras
from typing_extensions import Self

from keras_bsnn import manifolds
from keras_bsnn._types import Config, Shape
from keras_bsnn.depth import _arguments, _checks, _lora, _per_layer
from keras_bsnn.depth._built import Built, Hidden
from keras_bsnn.depth._template import Template, ordered


def _automatic_name(block, depth):
    """A name that tells in a summary what is stacked, numbered as Keras does."""
    base = re.sub(r"_\d+$", "", block.name)
    name = f"depth_stack_{depth}_{base}"
    uid = keras.backend.get_uid(name)
    return name if uid == 1 else f"{name}_{uid - 1}"


def _plain(policy):
    """A dtype policy, without how the block's own product is quantized."""
    if isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy):
        return policy.name.rpartition("_from_")[2]
    return policy


POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


class Layers(list):
    """Built layers that a stack is made of, in the place of its block."""


class StackedLayers(keras.layers.Layer):
    """`depth` layers like `block`, whose weights are one weight each.

    It is the part of `DepthStack` that does not compute.

    Args:
        block: as for `DepthStack`, or `Layers`.
        depth, **kwargs: as for `DepthStack`.
    """

    def __init__(self, block: Any, depth: int, name: str | None = None, **kwargs: Any):
        layers = block if isinstance(block, Layers) else []
        block = layers[0] if layers else block
        kwargs.setdefault("dtype", _plain(block.dtype_policy))
        super().__init__(name=name or _automatic_name(block, depth), **kwargs)
        self.depth = int(depth)
        self._hidden = Hidden(block, [ordered(layer) for layer in layers])

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} name={self.name}, depth={self.depth}, "
            f"block={type(self.block).__name__}, built={self.built}>"
        )

    @property
    def block(self) -> keras.Layer:
        """The pattern of the layers; its own weights are not those of any layer."""
        return self._built.template.block if self._built else self._hidden.block

    @property
    def per_layer(self) -> dict[str, Any]:
        """What each layer is given at every call: arrays with an axis of depth."""
        return self._hidden.per_layer

    @property
    def _built(self):
        return self._hidden.built

    @property
    def trainable(self) -> bool:
        """Whether the layers are trained; if not, they keep their statistics, too."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        if self._built:
            self.block.trainable = value

    def build(self, input_shape: Shape | None) -> None:
        if self._hidden.specs is None and input_shape is not None:
            inputs = keras.KerasTensor(input_shape, self.compute_dtype)
            given = _arguments.specs(self.per_layer)
            self._hidden.specs = _arguments.Arguments(inputs, (), given, {}, {})
        if specs := self._hidden.specs:
            _checks.check_per_layer(specs.per_layer, self.depth)
            inputs = _arguments.specs(specs.inputs, self.compute_dtype)
            self._hidden.specs = specs._replace(inputs=inputs)
            specs = _arguments.of_one_layer(self._hidden.specs)
        variables = self._hidden.variables
        kept, adapters = bool(variables), self._hidden.adapters
        template = Template(self.block, specs, kept, adapters)
        stacks = self._add_stacks(template)
        self._hidden.built = self._made(template, stacks)
        self._hidden.variables = []  # their values are in the stack now
        if not self.trainable:
            template.block.trainable = False

    def _made(self, template, stacks):
        return Built(template, stacks, self.depth, self.per_layer)

    def _add_stacks(self, template):
        variables = (*template.weights, *template.constants)
        initializers = template.initializers
        if self._hidden.variables:
            of_layers = zip(*self._hidden.variables, strict=True)
            initializers = map(_per_layer.Values, of_layers)
        pairs = zip(variables, initializers, strict=True)
        return [
            self._add_stack(template.name_of(variable), variable, initializer)
            for variable, initializer in pairs
        ]

    def _add_stack(self, name, variable, initializer):
        constraint, regularizer = variable.constraint, variable.regularizer
        is_float = keras.backend.is_float_dtype(variable.dtype)
        aggregation = "mean" if is_float else "only_first_replica"
        if variable.trainable or variable.aggregation != "none":
            aggregation = variable.aggregation
        stack = self.add_weight(
            name=name,
            shape=(self.depth, *variable.shape),
            initializer=initializer,
            dtype=variable.dtype,
            trainable=variable.trainable,
            autocast=False,  # the block casts what it uses
            constraint=constraint and _per_layer.Constrained(constraint),
            regularizer=regularizer and _per_layer.Regularized(regularizer),
            aggregation=aggregation,
        )
        stack.stacked_axes = 1 + manifolds.stacked_axes(variable)
        return stack

    def get_build_config(self) -> Config:
        specs = self._hidden.specs
        call = {"call": _arguments.to_config(specs), "flags": specs.flags}
        adapters = {"adapters": _lora.adapters(self.block)}
        shape = getattr(specs.inputs, "shape", None)
        return {"input_shape": shape, **call, **adapters}

    def build_from_config(self, config: Config) -> None:
        call = config["call"], config.get("flags", {})
        self._hidden.specs = _arguments.from_config(*call)
        self._hidden.adapters = config.get("adapters", [])
        self.build(None)

    def _check_built(self):
        if not self.built:
            raise ValueError(f"The stack {self.name!r} is not built: call it first.")

    @classmethod
    def from_layers(cls, layers: Iterable[keras.Layer], **kwargs: Any) -> Self:
        """Makes a stack with the weights of layers that are equal but for these.

        Args:
            layers: built layers that do the same with weights of their own: of one
                class, with equal settings. The first is the `block` of the stack from
                then on. Only to save the stack, or to copy a layer from it, its class
                must have a `get_config`.
            **kwargs: further arguments of the stack.

        Raises:
            ValueError: the layers are none, not built, or not equal.
        """
        layers = Layers(layers)
        _checks.check_layers(layers)
        stack = cls(layers, len(layers), **kwargs)
        stack.build(_input_shape(layers[0]))
        return stack


def _input_shape(layer):
    """The shape that a built layer is called with, or `None` if it takes more."""
    config = layer.get_build_config() or {}
    parameters = inspect.signature(layer.call).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in POSITIONAL]
    return config.get("input_shape") if len(needed) == 1 else None
