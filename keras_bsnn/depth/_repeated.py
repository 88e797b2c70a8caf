"""One layer called many times, in a loop."""

from typing import Any

import keras

from keras_bsnn import _backend
from keras_bsnn.depth import _per_layer
from keras_bsnn.depth._block_rule import BlockRule
from keras_bsnn.depth._built import Built
from keras_bsnn.depth._layers import Layers
from keras_bsnn.depth._rule import Layer
from keras_bsnn.depth._stack import DepthStack


class Repeated(DepthStack):
    """A layer that is called `times` times, each time with what it returned before.

    It has the weights of the layer, and random numbers of its own for each call.

    Args:
        layer: a built layer, none of which variables change but the states of random
            generators. It is called like the block of a `DepthStack`.
        times: integer of at least 1.
        **kwargs: arguments of `keras.Layer`.
    """

    def __init__(self, layer: keras.Layer, times: int, **kwargs: Any):
        super().__init__(Layers([layer] * times), times, **kwargs)
        self.repeated = layer  # which has the weights

    def _add_stacks(self, template):
        """Of the states of random generators alone, which come first from then on."""
        states = [v for v in template.constants if is_state(v)]
        template.constants = states + [v for v in template.constants if not is_state(v)]
        return [self._add_stack(template.name_of(v), v, _seeds(v)) for v in states]

    def _made(self, template, stacks):
        return _BuiltOnce(template, stacks, self.depth, self.per_layer)

    def variables_with(self, layers):
        """As that of a stack: each variable of the layer, and of the first layer."""
        states = [*self.repeated.variables], [*next(iter(layers)).variables]
        pairs = zip(*states, strict=True)
        return [pair for pair in pairs if not is_state(pair[0])]


class _BuiltOnce(Built):
    """Only the states of random generators have an axis of the calls."""

    def __init__(self, template, stacks, depth, per_layer):
        super().__init__(template, stacks, depth, per_layer)
        self.weights, self.constants = [], stacks

    def _rule_and_layers(self, arguments, training, block=None):
        template = self.template
        shared, states, fixed = (
            [_backend.read(v) for v in group]
            for group in (
                template.weights,
                self.constants,
                template.constants[len(self.constants) :],
            )
        )
        layers = Layer(
            constants=(states, {}),
            shared=(arguments.context, arguments.keywords, shared),
            fixed=(arguments.masks, fixed),
        )
        return _Rule(template, training, arguments.flags, block), layers


class _Rule(BlockRule):
    """The rule of a layer whose weights are what all layers share."""

    chunk = 1  # so that the gradients of the weights are summed in the loop

    def step(self, carry, layer):
        *shared, weights = layer.shared
        masks, constants = layer.fixed
        alone = layer._replace(
            weights=(weights, {}),
            constants=([*layer.constants[0], *constants], {}),
            shared=shared,
            fixed=masks,
        )
        return super().step(carry, alone)


def _seeds(state):
    return _per_layer.SeedStates(keras.ops.convert_to_numpy(state).tolist())


def is_state(variable):
    """Whether a variable is the state of a random number generator."""
    return variable.name == "seed_generator_state"
