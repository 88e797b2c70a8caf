"""The loop over the layers of a stack, forwards and backwards.

The forward loop keeps what enters each layer, its *carry*. The gradient is a loop in
reverse: it asks a `Rule` for the vector-Jacobian product of one layer after another.
The cost to compile either does not depend on their number. The steps of a recurrent
network are such layers, which share their kernels.
"""

import math
from typing import NamedTuple

from keras import ops

from keras_bsnn.ops import _backend


class Rule:
    """What one layer does to the carry, and its vector-Jacobian product.

    This one works for any function, by differentiating it again in the reverse loop. A
    block that knows better offers its own rule: a subclass, from a method
    `depth_rule()`.

    Args:
        function: callable `(carry, weights, constants)` of one layer; returns the next
            carry, and a tuple of further tensors. `weights` are those of the layer,
            then those that all share; and so are `constants`.
        dtypes: of these tensors.
        differentiable: number of those, counted from the first, that have a gradient.

    Attributes:
        chunk: number of layers, at most, whose `gradients` are worth finding at once;
            `None` for all of them.
        constants: of a block's own rule, the number of constants that it takes.
    """

    chunk = None
    constants = 0

    def __init__(self, function, dtypes=(), differentiable=0):
        self.function = function
        self.dtypes = tuple(dtypes)
        self.differentiable = differentiable

    def enter(self, inputs):
        """The carry that enters the first layer."""
        return inputs

    def leave(self, carry):
        """The outputs, from the carry that leaves the last layer."""
        return carry

    def step(self, carry, weights, constants, index):
        """The next carry, and the tensors that this layer gives besides."""
        return self.function(carry, weights, constants)

    def step_and_keep(self, carry, weights, constants, index):
        """`step`, and a tuple of tensors that are kept for `prepare`."""
        return *self.step(carry, weights, constants, index), ()

    def kept_dtypes(self, carry):
        """Of these tensors."""
        return []

    def prepare(self, carries, following, kept, weights, constants, start):
        """What `pull` needs of the layers from `start` on, at once, in a tuple.

        Args:
            carries: of shape `(layers, ...)`, what enters each.
            following: the carry that leaves the last of them.
            kept: what `step_and_keep` kept of each, with that leading axis.
            weights, constants: of these layers, then those that all share.
            start: index of the first.
        """
        return (carries,)

    def pull(self, gradient, prepared, weights, constants, gradients, index):
        """The gradient of the carry that enters a layer, from that of the one it gives.

        Args:
            gradient: of the carry that leaves the layer.
            prepared: this layer's slices of what `prepare` returned.
            weights, constants: of this layer, then those that all share.
            gradients: of the differentiable tensors that `step` gave.
            index: of this layer.

        Returns:
            That gradient, and a tuple of tensors for `gradients`.
        """

        def function(carry, *weights):
            carry, outputs = self.function(carry, weights, constants)
            return carry, *outputs[: self.differentiable]

        _, pull = _backend.vjp(function, *prepared, *weights)
        gradient, *of_weights = pull((gradient, *gradients))
        return gradient, tuple(of_weights)

    def pulled_dtypes(self, carry, weights):
        """Of the tensors that `pull` returns for `gradients`."""
        return [w.dtype for w in weights]

    def gradients(self, prepared, pulled, weights, shared):
        """Gradients of the weights of layers, from what `pull` gave for each of them.

        Args:
            prepared, pulled: tensors with a leading axis of the layers.
            weights: the same, those of each layer.
            shared: those that all layers share.

        Returns:
            For each of `weights` a gradient of its shape, then for each of `shared` the
            sum over the layers.
        """
        own, common = pulled[: len(weights)], pulled[len(weights) :]
        return (*own, *(ops.sum(x, axis=0) for x in common))


class Tensors(NamedTuple):
    """What layers use besides the carry.

    Attributes:
        weights, constants: with a leading axis of the layers; only the first have
            gradients.
        shared, fixed: the same without that axis, for all layers.
        shards: number of devices that this axis is divided among, a divisor of it.
    """

    weights: tuple = ()
    constants: tuple = ()
    shared: tuple = ()
    fixed: tuple = ()
    shards: int = 1

    def of_layer(self, index):
        """Weights and constants of one layer, as a `Rule` takes them."""
        weights, constants = (
            [_entry(x, index, self.shards) for x in stacks] for stacks in self[:2]
        )
        return [*weights, *self.shared], [*constants, *self.fixed]

    def flat(self):
        """Those that have gradients come first."""
        return [*self.weights, *self.shared, *self.constants, *self.fixed]

    def like(self, flat):
        """Other tensors, flat, ordered as these."""
        flat = iter(flat)
        weights, shared, constants, fixed = (
            tuple(next(flat) for _ in group)
            for group in (self.weights, self.shared, self.constants, self.fixed)
        )
        return Tensors(weights, constants, shared, fixed, self.shards)


def run(rule, inputs, tensors, depth, checkpoint_every=None, keep=True):
    """Applies `depth` layers to `inputs`, one after the other.

    Args:
        rule: a `Rule`.
        inputs: tensor that enters the first layer.
        tensors: `Tensors`, with a leading axis of `depth`.
        depth: number of layers.
        checkpoint_every: keep the carry of every k-th layer only, and compute the
            others again in the reverse loop. `None` to keep all.
        keep: whether the forward loop keeps the carries. Without, a gradient starts
            with another forward loop.

    Returns:
        The outputs, and a list of the further tensors that the rule gives, each with a
        leading axis of `depth`.
    """
    if checkpoint_every is not None:
        return _checkpointed(rule, inputs, tensors, depth, checkpoint_every, keep)
    carry, outputs = _loop(rule, rule.enter(inputs), tensors, depth, keep)
    return rule.leave(carry), outputs


def _checkpointed(rule, inputs, tensors, depth, every, keep):
    """A loop over segments, each of which is a loop over layers."""
    stacks = len(tensors.weights), len(tensors.constants)

    def segment(inputs, weights, constants):
        own = weights[: stacks[0]], constants[: stacks[1]]
        common = weights[stacks[0] :], constants[stacks[1] :]
        outputs, others = run(rule, inputs, Tensors(*own, *common), every)
        return outputs, tuple(others)

    weights, constants = ([_split(x, every) for x in group] for group in tensors[:2])
    shards = math.gcd(tensors.shards, depth // every)
    split = tensors._replace(weights=weights, constants=constants, shards=shards)
    segments = Rule(segment, rule.dtypes, rule.differentiable)
    outputs, others = _loop(segments, inputs, split, depth // every, keep)
    return outputs, [_merge(x) for x in others]


def _loop(rule, carry, tensors, depth, keep):
    """The loop that the two gradients below belong to."""

    def function(carry, *flat):
        tensors_ = tensors.like(flat)
        carry, _, outputs = _forward(rule, carry, tensors_, depth, keep=False)
        return carry, *outputs

    def forward(carry, *flat):
        tensors_ = tensors.like(flat)
        last, kept, outputs = _forward(rule, carry, tensors_, depth, keep)
        return (last, *outputs), ((last, kept) if keep else (carry,), flat)

    def backward(residuals, gradients):
        states, flat = residuals
        tensors_ = tensors.like(flat)
        if not keep:
            last, kept, _ = _forward(rule, *states, tensors_, depth, keep=True)
            states = last, kept
        gradient, found = _backward(rule, *states, tensors_, depth, gradients)
        return gradient, *found, *[None] * (len(flat) - len(found))

    looped = _backend.with_gradient(function, forward, backward)
    carry, *outputs = looped(carry, *tensors.flat())
    return carry, outputs


def _forward(rule, carry, tensors, depth, keep):
    """The last carry; if `keep`, what enters each layer and what the rule keeps."""

    def step(index, carry):
        return rule.step(carry, *tensors.of_layer(index), index)

    def step_and_keep(index, carry):
        of_layer = tensors.of_layer(index)
        following, outputs, kept = rule.step_and_keep(carry, *of_layer, index)
        return following, (*outputs, carry, *kept)

    dtypes = list(rule.dtypes)
    if not keep:
        last, outputs = _backend.loop(step, carry, depth, dtypes)
        return last, (), outputs
    dtypes += [carry.dtype, *rule.kept_dtypes(carry)]
    last, outputs = _backend.loop(step_and_keep, carry, depth, dtypes)
    count = len(rule.dtypes)
    return last, tuple(outputs[count:]), outputs[:count]


def _backward(rule, last, kept, tensors, depth, gradients):
    """The gradient of the first carry, and those of weights and shared weights."""
    size = _chunk(depth, rule.chunk, tensors.shards)
    gradient, *of_outputs = gradients[: 1 + rule.differentiable]
    count = len(tensors.weights)
    pulled_dtypes = rule.pulled_dtypes(last, [*tensors.weights, *tensors.shared])

    def piece(x, j, shards=1):
        # As one piece, for the number of layers may be a tensor.
        return x if size is depth else _entry(_split(x, size), j, shards)

    def chunk(j, state):
        gradient, following, *sums = state
        start = j * size
        weights, constants = (
            [piece(x, j, tensors.shards) for x in group] for group in tensors[:2]
        )
        entering, *kept_ = (piece(x, j) for x in kept)
        prepared = rule.prepare(
            entering,
            following,
            kept_,
            [*weights, *tensors.shared],
            [*constants, *tensors.fixed],
            start,
        )

        def pull(i, gradient):
            outputs = [x[start + i] for x in of_outputs]
            slices = [x[i] for x in prepared]
            of_layer = tensors.of_layer(start + i)
            return rule.pull(gradient, slices, *of_layer, outputs, start + i)

        gradient, pulled = _backend.loop(
            pull, gradient, size, pulled_dtypes, reverse=True
        )
        found = rule.gradients(prepared, pulled, weights, tensors.shared)
        sums = [a + b for a, b in zip(sums, found[count:], strict=True)]
        return (gradient, entering[0], *sums), found[:count]

    state = gradient, last, *map(ops.zeros_like, tensors.shared)
    if size is depth:
        (gradient, _, *sums), found = chunk(0, state)
        return gradient, [*found, *sums]
    dtypes = [w.dtype for w in tensors.weights]
    (gradient, _, *sums), found = _backend.loop(
        chunk, state, depth // size, dtypes, reverse=True
    )
    return gradient, [*map(_merge, found), *sums]


def _entry(x, index, shards):
    """`x[index]`, of an axis that may be divided among devices.

    Each device looks into its own part, and the owner's entry is sent to all. By
    `x[index]` alone, XLA would first gather the whole of `x` on every device.
    """
    if shards == 1:
        return x[index]
    parts = ops.reshape(x, (shards, x.shape[0] // shards, *x.shape[1:]))
    owner, place = index // parts.shape[1], index % parts.shape[1]
    is_owner = ops.reshape(ops.arange(shards) == owner, (-1, *[1] * len(x.shape[1:])))
    entries = ops.where(is_owner, parts[:, place], 0)  # only one is not 0
    return ops.cast(ops.sum(entries, axis=0), x.dtype)


def _chunk(depth, limit, shards):
    """The largest divisor of `depth` up to a limit; if that is 1, of any tensor.

    No chunk has layers of two shards.
    """
    if limit in (None, 1):
        return limit or depth
    sizes = range(1, min(limit, depth) + 1)
    return max(size for size in sizes if depth % (size * shards) == 0)


def _split(x, size):
    return ops.reshape(x, (ops.shape(x)[0] // size, size, *ops.shape(x)[1:]))


def _merge(x):
    return ops.reshape(x, (ops.shape(x)[0] * x.shape[1], *ops.shape(x)[2:]))
