"""The loop over the layers of a stack, forwards and backwards.

The forward loop keeps what the rule needs of each layer. The gradient is a loop in
reverse, which asks the rule for the vector-Jacobian product of one layer after another.
The cost of compiling either does not depend on their number. The steps of a recurrent
network are such layers, which share their kernels.
"""

import math
from typing import Any, NamedTuple

from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth._rule import Layer, Step

FEW = 4  # chunks
LARGE = 2**22  # entries of the weights of a stack, or of carries


class Loop(NamedTuple):
    """How a loop runs.

    Attributes:
        depth: number of layers, an integer or an integer tensor.
        keep: whether the forward loop keeps what the gradient needs. Without, the
            gradient starts with another forward loop.
        shards: number of devices that the axis of the layers is divided among, a
            divisor of `depth`.
    """

    depth: Any
    keep: bool = True
    shards: int = 1


def run(rule, carry, layers, loop):
    """Sends a carry through the layers of a stack, one after the other.

    Args:
        rule: a `Rule`.
        carry: structure of tensors that enters the first layer.
        layers: a `Layer` whose weights and constants have a leading axis of the layers.
        loop: a `Loop`.

    Returns:
        A `Step`: the carry that leaves the last layer, and the outputs and updates of
        all of them, with a leading axis of the layers.
    """

    def function(carry, *groups):
        last, outputs, updates, _ = _forward(rule, carry, Layer(*groups), loop, False)
        return last, outputs, updates

    def forward(carry, *groups):
        layers = Layer(*groups)
        last, outputs, updates, kept = _forward(rule, carry, layers, loop, loop.keep)
        return (last, outputs, updates), (carry, kept, groups)

    def backward(residuals, gradient):
        carry, kept, groups = residuals
        layers = Layer(*groups)
        if not loop.keep:
            kept = _forward(rule, carry, layers, loop, True)[-1]
        gradient = Step(*gradient[:2])
        carry, weights, shared = _backward(rule, carry, kept, layers, loop, gradient)
        return carry, weights, None, shared, None, None

    looped = _backend.with_gradient(function, forward, backward)
    layers = layers._replace(index=ops.convert_to_tensor(layers.index, "int32"))
    return Step(*looped(carry, *layers))


def _forward(rule, carry, layers, loop, keep):
    """The last carry, the outputs and updates of the layers, and what they keep."""

    def step(index, carry):
        found = rule.step(carry, _layer(layers, index, loop.shards))
        kept = (carry if found.kept is None else found.kept) if keep else ()
        return found.carry, (found.outputs, found.updates, kept)

    like = carry if keep else ()
    unroll = _at_once(rule.unroll, carry)
    last, stacked = _backend.loop(step, carry, loop.depth, like=like, unroll=unroll)
    return last, *stacked


def _backward(rule, first, kept, layers, loop, gradient):
    """The gradients of the first carry, of the weights and of what layers share."""
    size = _chunk(loop, rule.chunk and _at_once(rule.chunk, first))
    unroll = _at_once(rule.unroll, first)

    def pull_through(prepared, of_carry, start, count):
        def pull(i, of_carry):
            layer = _layer(layers, start + i, loop.shards)
            outputs = _backend.map_tensors(lambda x: x[start + i], gradient.outputs)
            slices = _backend.map_tensors(lambda x: x[i], prepared)
            return rule.pull(Step(of_carry, outputs), slices, layer)

        like = rule.pulled_like(of_carry, layers)
        return _backend.loop(
            pull, of_carry, count, reverse=True, like=like, unroll=unroll
        )

    if size is None:
        prepared = rule.prepare(rule.entering(first, None, True), kept, layers)
        of_carry, pulled = pull_through(prepared, gradient.carry, 0, loop.depth)
        return of_carry, *rule.gradients(prepared, pulled, layers)

    def piece(tree, j, shards=1):
        return _backend.map_tensors(lambda x: entry(split(x, size), j, shards), tree)

    def chunk(j, state):
        of_carry, sums = state
        start = j * size
        below = _backend.map_tensors(lambda x: x[ops.maximum(start - 1, 0)], kept)
        entering = rule.entering(first, below, ops.equal(j, 0))
        part = layers._replace(
            weights=piece(layers.weights, j, loop.shards),
            constants=piece(layers.constants, j, loop.shards),
            index=layers.index + start,
        )
        prepared = rule.prepare(entering, piece(kept, j), part)
        of_carry, pulled = pull_through(prepared, of_carry, start, size)
        weights, shared = rule.gradients(prepared, pulled, part)
        return (of_carry, _backend.map_tensors(ops.add, sums, shared)), weights

    sums = _backend.map_tensors(ops.zeros_like, _backend.floats(layers.shared))
    count = loop.depth // size
    (of_carry, shared), weights = _over_chunks(count, layers.weights)(
        chunk,
        (gradient.carry, sums),
        count,
        reverse=True,
        like=_backend.floats(layers.weights),
        unroll=max(1, unroll // size),
    )
    return of_carry, _backend.map_tensors(merge, weights), shared


def _over_chunks(count, weights):
    """The loop over chunks.

    XLA would write the gradients of a chunk into a tensor of those of all, once filled
    with zeros. It reads those of few chunks where they are.
    """
    if not isinstance(count, int) or count > FEW:
        return _backend.loop
    is_large = _entries(weights) >= LARGE
    return _backend.loop_in_python if is_large else _backend.loop


def _at_once(count, carry):
    """At most so many layers, and so few that their carries together are not large.

    What is computed for many layers at once goes through the memory once more.
    """
    return max(1, min(count, LARGE // max(1, _entries(carry))))


def _entries(tree):
    """The size of the largest tensor of a structure, of those whose size is known."""
    shapes = [x.shape for x in _backend.flatten(tree)]
    known = [s for s in shapes if all(isinstance(length, int) for length in s)]
    return max(map(math.prod, known), default=0)


def _layer(layers, i, shards):
    """The tensors of one layer."""
    return layers._replace(
        weights=_backend.map_tensors(lambda x: entry(x, i, shards), layers.weights),
        constants=_backend.map_tensors(lambda x: entry(x, i, shards), layers.constants),
        index=layers.index + i,
    )


def entry(x, index, shards):
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


def _chunk(loop, limit):
    """The largest divisor of the depth up to a limit, `None` for one chunk of all.

    No chunk has layers of two shards. A limit of 1 is for a depth that is a tensor.
    """
    if limit is None:
        return None
    if limit == 1:
        return 1
    sizes = range(1, min(limit, loop.depth) + 1)
    size = max(size for size in sizes if loop.depth % (size * loop.shards) == 0)
    return None if size == loop.depth else size


def split(x, size):
    """The first axis as two, of which the second has a size."""
    return ops.reshape(x, (ops.shape(x)[0] // size, size, *ops.shape(x)[1:]))


def merge(x):
    """The first two axes as one."""
    return ops.reshape(x, (ops.shape(x)[0] * x.shape[1], *ops.shape(x)[2:]))
