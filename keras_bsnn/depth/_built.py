"""What a stack has besides its weights, out of the sight of Keras."""

import functools
import math
from typing import Any

from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import _arguments, _checkpoints, _layer_drop, _loop, _options
from keras_bsnn.depth._block_rule import BlockRule
from keras_bsnn.depth._rule import Layer


class Hidden:
    """What Keras must not track: it would take the block's weights for the stack's.

    Args:
        block: the block that the stack is given.
        variables: lists of those of the layers that it is made of, if there are any.

    Attributes:
        specs: what the stack is called with, an `_arguments.Arguments` without values.
        per_layer: dict of arrays that its layers are given at every call.
        adapters: those that its block is to have, as of `_lora.adapters`.
        built: a `Built`, once the stack is built.
    """

    def __init__(self, block, variables):
        self.block = block
        self.variables = variables
        self.specs: Any = None
        self.per_layer: dict[str, Any] = {}
        self.adapters: list = []
        self.built: Built | None = None

    def learn(self, arguments):
        """Keeps what a stack is called with: `build` is told one shape alone."""
        tensors = _arguments.specs(arguments.tensors())
        specs = _arguments.Arguments.of(tensors, arguments.flags)
        if self.built is None:
            self.specs = specs
        else:
            self.built.template.learn(_arguments.of_one_layer(specs))


class Built:
    """What a stack has once it is built.

    Args:
        template: a `Template`.
        stacks: the variables of the stack, in the order of the template's.
        depth: the number of layers.
        per_layer: as of `Hidden`.

    Attributes:
        constants: those of `stacks` that stand for the template's constants.
        traced: loops that were traced, to be called outside of a graph.
    """

    def __init__(self, template, stacks, depth, per_layer):
        self.template = template
        self.depth = depth
        self.per_layer = per_layer
        self.stacks = stacks
        self.weights = stacks[: len(template.weights)]
        self.constants = stacks[len(template.weights) :]
        self.traced = {}

    @functools.cached_property
    def traveller(self):
        """The one layer that takes the weights of each in turn."""
        return self.template.new(f"{self.template.block.name}_each")

    def run(self, arguments, training, options):
        """Runs the loop, traced once if it is called outside of a graph.

        Args:
            arguments: a `_arguments.Arguments`.
            training: as in the call of a layer.
            options: an `_options.Options`.

        Returns:
            A `Step`, as of `_checkpoints.run`.
        """
        inputs, observed = arguments.inputs, options.observed
        self.template.check_inputs(inputs)
        rule, layers = self._rule_and_layers(
            arguments, training, observed and observed.block
        )
        rule, layers = _options.around(rule, layers, options)
        keep = training is not False or observed is not None
        shards = max(map(_backend.shards, self.stacks), default=1)
        loop = _loop.Loop(self.depth, keep, math.gcd(shards, self.depth))

        def run(inputs, *groups):
            layers = Layer(*groups)
            return _checkpoints.run(rule, inputs, layers, loop, options.sizes)

        if _backend.is_concrete(_backend.flatten(inputs)[0]):
            traced = observed.traced if observed else self.traced
            flags = str(sorted(arguments.flags.items()))
            key = training, self.template.block.trainable, flags
            run = traced.setdefault(key, _backend.traced_once(run))
        found = run(inputs, *layers[:-1])
        if options.runs is None:
            return found
        new = options.runs, found.updates, self.constants
        return found._replace(updates=_layer_drop.updates_of_those_that_run(*new))

    def _rule_and_layers(self, arguments, training, block=None):
        """The rule of a layer, and the tensors of all of them.

        It is the block's own rule where it has one for what its `call` does.
        """
        block = block or self.template.block
        rule = _own_rule(block)
        if rule is not None:
            return self._with_regularizer(rule, block), self._bound(block)
        weights, constants = (
            [_backend.read(v) for v in group]
            for group in (self.weights, self.constants)
        )
        given = _backend.map_tensors(ops.convert_to_tensor, self.per_layer)
        layers = Layer(
            (weights, arguments.per_layer),
            (constants, given),
            (arguments.context, arguments.keywords),
            arguments.masks,
        )
        return BlockRule(self.template, training, arguments.flags, block), layers

    def _with_regularizer(self, rule, block):
        if block.activity_regularizer is None:
            return rule
        return _options.Regularized(rule, block.activity_regularizer)

    def _bound(self, block):
        """The block's tensors, with the stack of a variable in its place."""
        stack_of = self.stack_of()
        return _backend.map_tensors(
            lambda x: _backend.read(stack_of.get(id(x), x)), block.depth_tensors()
        )

    def stack_of(self):
        """A dict from the id of a variable of the block to that of the stack."""
        variables = (*self.template.weights, *self.template.constants)
        return dict(zip(map(id, variables), self.stacks, strict=True))


def _own_rule(block):
    """The rule that a block offers; of a subclass with another `call`, its own."""
    if not hasattr(block, "depth_rule"):
        return None
    owners = [_owner(block, name) for name in ("depth_rule", "call")]
    return block.depth_rule() if issubclass(*owners) else None


def _owner(layer, name):
    """The class that defines an attribute of a layer."""
    return next(c for c in type(layer).__mro__ if name in vars(c))
