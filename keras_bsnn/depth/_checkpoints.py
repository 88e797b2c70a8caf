"""A loop over segments of a stack, each of which is a loop over layers.

Only what enters each segment is kept for the gradient; what enters its layers is
computed again.
"""

import math

from keras_bsnn import _backend
from keras_bsnn.depth import _loop
from keras_bsnn.depth._rule import Rule
from keras_bsnn.ops import _check

KIND = 'an integer, "sqrt", or a tuple of integers'


def checked(every, depth):
    """`checkpoint_every` of a stack as plain Python; a list stands for a tuple.

    Raises:
        ValueError: it is not of the kind that `DepthStack` describes.
    """
    is_one = _check.is_integer(every)
    is_many = isinstance(every, (tuple, list)) and len(every) > 0
    if not (is_one or is_many or every is None or every == "sqrt"):
        raise _check.refusal("checkpoint_every", KIND, every, known=["sqrt"])
    whole = depth
    for size in sizes_of(every, depth):
        _check.integer("checkpoint_every", size, 1, whole)
        if whole % size:
            what = "depth" if whole == depth else f"{whole}, the one before it,"
            raise ValueError(
                f"`checkpoint_every` must be a divisor of depth: {size} does not "
                f"divide {what}. Received: checkpoint_every={every}, depth={depth}"
            )
        whole = size
    if is_many:
        return tuple(map(int, every))
    return int(every) if is_one else every


def sizes_of(every, depth):
    """The numbers of layers of segments, of those within them, and so on."""
    if every is None:
        return ()
    if (
        every == "sqrt"
    ):  # divisors come in pairs, whose smaller one is as near or nearer
        return (max(k for k in range(1, math.isqrt(depth) + 1) if depth % k == 0),)
    return (every,) if _check.is_integer(every) else tuple(every)


class SegmentRule(Rule):
    """A segment of layers as one layer.

    Args:
        rule: the rule of a layer.
        size: number of layers in a segment.
        within: numbers of layers of the segments within it, as of `sizes_of`.
    """

    def __init__(self, rule, size, within=()):
        self.rule = rule
        self.size = size
        self.within = within

    def step(self, carry, layer):
        layers = layer._replace(index=layer.index * self.size)
        return in_segments(self.rule, carry, layers, _loop.Loop(self.size), self.within)


def run(rule, inputs, layers, loop, sizes=()):
    """Applies the layers of a stack to inputs.

    Args:
        rule: a `Rule`.
        inputs: structure of tensors, from which `rule.enter` makes the first carry.
        layers: a `Layer` whose weights and constants have a leading axis of the layers.
        loop: a `_loop.Loop`.
        sizes: as of `sizes_of`: keep only what enters each segment, and compute the
            other carries again in the reverse loop. Empty to keep all.

    Returns:
        A `Step` like that of `_loop.run`, with the outputs of the last layer in the
        place of its carry.
    """
    found = in_segments(rule, rule.enter(inputs), layers, loop, sizes)
    return found._replace(carry=rule.leave(found.carry))


def in_segments(rule, carry, layers, loop, sizes):
    """`_loop.run` by segments; the arguments are those of `run`."""
    if not sizes:
        return _loop.run(rule, carry, layers, loop)
    size, *within = sizes
    count = loop.depth // size
    weights, constants = (
        _backend.map_tensors(lambda x: _loop.split(x, size), tree)
        for tree in (layers.weights, layers.constants)
    )
    segments = layers._replace(
        weights=weights, constants=constants, index=layers.index // size
    )
    loop = loop._replace(depth=count, shards=math.gcd(loop.shards, count))
    found = _loop.run(SegmentRule(rule, size, within), carry, segments, loop)
    outputs, updates = (_backend.map_tensors(_loop.merge, tree) for tree in found[1:3])
    return found._replace(outputs=outputs, updates=updates)
