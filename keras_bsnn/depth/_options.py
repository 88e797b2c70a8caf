"""What may be asked of a stack besides its output: rules around the rule of a layer.

They add results and gradients to a rule, and leave what it computes as it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import _layer_drop
from keras_bsnn.depth._rule import Rule


class Observed(NamedTuple):
    """What `DepthStack.observe` asks for; its arguments are described there."""

    probes: Any
    block: keras.Layer | None
    tap: Callable
    traced: dict


class Options(NamedTuple):
    """What a stack is asked for.

    Attributes:
        every_output: whether the output of each layer is an output.
        sizes: as of `_checkpoints.sizes_of`.
        observed: an `Observed`, or `None`.
        runs: as of `_layer_drop.drawn`, or `None` to run all layers.
    """

    every_output: bool
    sizes: tuple = ()
    observed: Observed | None = None
    runs: Any = None


def around(rule, layers, options):
    """The rule with its options, and the tensors of the layers as it takes them.

    Args:
        rule: a `Rule`.
        layers: a `Layer`.
        options: an `Options`.
    """
    observed = options.observed
    if options.runs is not None:
        rule = _layer_drop.Dropped(rule)
        layers = layers._replace(constants=(options.runs, layers.constants))
    if observed:
        rule = Tapped(rule, observed.tap)
    if options.every_output or observed:
        rule = EveryOutput(rule)
    if observed:
        rule = Probed(rule)
        layers = layers._replace(weights=(observed.probes, layers.weights))
    return rule, layers


class Option(Rule):
    """A rule that does as another does; subclasses add to it.

    Args:
        rule: the other rule.
    """

    def __init__(self, rule):
        self.rule = rule
        self.chunk, self.unroll = rule.chunk, rule.unroll

    def enter(self, inputs):
        return self.rule.enter(inputs)

    def leave(self, carry):
        return self.rule.leave(carry)

    def step(self, carry, layer):
        return self.rule.step(carry, layer)

    def entering(self, first, below, is_first):
        return self.rule.entering(first, below, is_first)

    def prepare(self, entering, kept, layers):
        return self.rule.prepare(entering, kept, layers)

    def pull(self, gradient, prepared, layer):
        return self.rule.pull(gradient, prepared, layer)

    def pulled_like(self, of_carry, layers):
        return self.rule.pulled_like(of_carry, layers)

    def gradients(self, prepared, pulled, layers):
        return self.rule.gradients(prepared, pulled, layers)


class EveryOutput(Option):
    """Adds the output of each layer to the outputs, as a pair with the rule's own."""

    def step(self, carry, layer):
        step = self.rule.step(carry, layer)
        return step._replace(outputs=(self.rule.leave(step.carry), step.outputs))

    def pull(self, gradient, prepared, layer):
        of_output, of_others = gradient.outputs
        # `leave` is linear: where it is differentiated does not matter.
        _, pull = _backend.vjp(self.rule.leave, gradient.carry)
        (added,) = pull(of_output)
        carry = _backend.map_tensors(ops.add, gradient.carry, added)
        inner = gradient._replace(carry=carry, outputs=of_others)
        return self.rule.pull(inner, prepared, layer)


class Tapped(Option):
    """Adds what `tap()` returns after each layer to the updates, as a pair.

    Args:
        rule: the rule of a layer without it.
        tap: callable without arguments that returns a structure of tensors.
    """

    def __init__(self, rule, tap):
        super().__init__(rule)
        self.tap = tap

    def step(self, carry, layer):
        step = self.rule.step(carry, layer)
        return step._replace(updates=(self.tap(), step.updates))


class Probed(Option):
    """Gives the gradient of each output, as that of a weight that is not used.

    The weights of a layer are a pair: such a probe, like the output, and the rule's
    own.
    """

    def step(self, carry, layer):
        return self.rule.step(carry, _without_probe(layer))

    def prepare(self, entering, kept, layers):
        return self.rule.prepare(entering, kept, _without_probe(layers))

    def pull(self, gradient, prepared, layer):
        entering, pulled = self.rule.pull(gradient, prepared, _without_probe(layer))
        of_output = self.rule.leave(gradient.carry)
        return entering, (of_output, pulled)

    def pulled_like(self, of_carry, layers):
        return of_carry, self.rule.pulled_like(of_carry, _without_probe(layers))

    def gradients(self, prepared, pulled, layers):
        probes, pulled = pulled
        inner = _without_probe(layers)
        weights, shared = self.rule.gradients(prepared, pulled, inner)
        return (probes, weights), shared


def _without_probe(layer):
    return layer._replace(weights=layer.weights[1])


class Regularized(Option):
    """Adds the activity regularizer's loss of each output, as a pair.

    Args:
        rule: the rule of a layer without it.
        regularizer: callable of an output that returns a scalar.
    """

    def __init__(self, rule, regularizer):
        super().__init__(rule)
        self.regularizer = regularizer

    def _loss(self, carry):
        return self.regularizer(self.rule.leave(carry))

    def step(self, carry, layer):
        step = self.rule.step(carry, layer)
        own = carry if step.kept is None else step.kept
        return step._replace(
            outputs=(self._loss(step.carry), step.outputs), kept=(step.carry, own)
        )

    def entering(self, first, below, is_first):
        return self.rule.entering(first, below and below[1], is_first)

    def prepare(self, entering, kept, layers):
        following, own = kept
        return following, self.rule.prepare(entering, own, layers)

    def pull(self, gradient, prepared, layer):
        following, own = prepared
        of_loss, of_others = gradient.outputs
        _, pull = _backend.vjp(self._loss, following)
        (added,) = pull(of_loss)
        carry = _backend.map_tensors(ops.add, gradient.carry, added)
        inner = gradient._replace(carry=carry, outputs=of_others)
        return self.rule.pull(inner, own, layer)

    def gradients(self, prepared, pulled, layers):
        return self.rule.gradients(prepared[1], pulled, layers)
