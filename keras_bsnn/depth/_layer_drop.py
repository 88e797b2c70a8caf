"""Layers that are skipped at random in training: what enters them passes through.

All layers draw at once, before the loop, so that its gradient sees what it did. A layer
that is skipped is not computed, neither forwards nor backwards.
"""

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import _loop
from keras_bsnn.depth._rule import Rule, Step
from keras_bsnn.ops import _check


def checked(rates, depth):
    """`layer_drop` of a stack as plain Python: `None`, a number, or a tuple of such.

    Raises:
        ValueError: it is not of the kind that `DepthStack` describes.
    """
    if rates is None:
        return None
    kind = f"a rate from 0 to 1, or depth={depth} of such"
    array = _check.interpreted("layer_drop", kind, _numpy, rates)
    if array.shape not in ((), (depth,)) or not np.all((array >= 0) & (array <= 1)):
        raise _check.refusal("layer_drop", kind, rates)
    return tuple(array.tolist()) if array.ndim else array.item()


def _numpy(rates):
    if isinstance(rates, (bool, str)):
        raise TypeError("That is no number.")
    return np.asarray(rates, "float64")


def drawn(rates, depth, generator):
    """Whether each layer runs, a boolean tensor of shape `(depth,)`."""
    draws = keras.random.uniform((depth,), dtype="float32", seed=generator)
    return ops.greater_equal(draws, ops.convert_to_tensor(rates, "float32"))


def updates_of_those_that_run(runs, updates, variables):
    """The new values of variables of the stack, where skipped layers keep the old.

    Args:
        runs: as of `drawn`.
        updates: dict from the indices of variables to values.
        variables: list of them.
    """

    def chosen(new, old):
        shape = (-1, *[1] * (len(new.shape) - 1))
        return ops.where(ops.reshape(runs, shape), new, _backend.read(old))

    return {i: chosen(new, variables[i]) for i, new in (updates or {}).items()}


class _Around(Rule):
    """A rule whose carry is that of another, and whose gradient is not."""

    def __init__(self, rule):
        self.rule = rule
        self.unroll = rule.unroll

    def enter(self, inputs):
        return self.rule.enter(inputs)

    def leave(self, carry):
        return self.rule.leave(carry)


class Dropped(_Around):
    """A rule whose layer runs if it is told so.

    The constants of a layer are a pair: whether it runs, and the rule's own. The
    updates of a layer that is skipped are zeros, which stand for nothing.

    Args:
        rule: the rule of a layer.
    """

    def __init__(self, rule):
        has_own = type(rule).pull is not Rule.pull
        super().__init__(_Alone(rule) if has_own else rule)
        self._more = None

    def step(self, carry, layer):
        runs, layer = _parted(layer)

        def run():
            step = self.rule.step(carry, layer)
            return step.carry, step.outputs, step.updates

        if self._more is None:
            self._more = self._specs(carry, layer)
        skipped = carry, *_backend.map_tensors(_zeros, self._more)
        return Step(*_if(runs, run, skipped))

    def _specs(self, carry, layer):
        """The outputs and updates of a layer, without values."""
        found = []

        def look(carry, layer):
            step = self.rule.step(carry, layer)
            more = step.outputs, step.updates
            found.append(_backend.map_tensors(_spec, more))
            return step.carry

        _backend.dry_run(look, carry, layer)
        return found[-1]

    def pull(self, gradient, prepared, layer):
        runs, layer = _parted(layer)
        like = self.pulled_like(gradient.carry, layer)
        skipped = gradient.carry, _backend.map_tensors(ops.zeros_like, like)
        return _if(runs, lambda: self.rule.pull(gradient, prepared, layer), skipped)

    def pulled_like(self, of_carry, layers):
        return _backend.floats((layers.weights, layers.shared))


class _Alone(_Around):
    """A rule that has a gradient of its own, used for one layer at a time."""

    def step(self, carry, layer):
        weights, constants = (
            _backend.map_tensors(lambda x: ops.expand_dims(x, 0), tree)
            for tree in (layer.weights, layer.constants)
        )
        alone = layer._replace(weights=weights, constants=constants)
        found = _loop.run(self.rule, carry, alone, _loop.Loop(1))
        outputs, updates = (
            _backend.map_tensors(lambda x: x[0], tree) for tree in found[1:3]
        )
        return Step(found.carry, outputs, updates)


def _parted(layer):
    runs, constants = layer.constants
    return runs, layer._replace(constants=constants)


def _spec(x):
    return keras.KerasTensor(tuple(x.shape), x.dtype)


def _zeros(spec):
    return ops.zeros(spec.shape, spec.dtype)


def _if(predicate, run, skipped):
    """What `run()` returns, a structure of tensors like `skipped`, or `skipped`."""
    found = ops.cond(
        predicate,
        lambda: tuple(_backend.flatten(run())),
        lambda: tuple(_backend.flatten(skipped)),
    )
    return _backend.pack_like(skipped, found)
