"""A loop over segments of a stack, each of which is a loop over layers.

Only what enters each segment is kept for the gradient; what enters its layers is
computed again.
"""

import math

from keras_bsnn import _backend
from keras_bsnn.depth import _loop
from keras_bsnn.depth._rule import Rule


class SegmentRule(Rule):
    """A segment of layers as one layer.

    Args:
        rule: the rule of a layer.
        size: number of layers in a segment.
    """

    def __init__(self, rule, size):
        self.rule = rule
        self.size = size

    def step(self, carry, layer):
        layers = layer._replace(index=layer.index * self.size)
        return _loop.run(self.rule, carry, layers, _loop.Loop(self.size))


def run(rule, inputs, layers, loop, every=None):
    """Applies the layers of a stack to inputs.

    Args:
        rule: a `Rule`.
        inputs: structure of tensors, from which `rule.enter` makes the first carry.
        layers: a `Layer` whose weights and constants have a leading axis of the layers.
        loop: a `_loop.Loop`.
        every: keep the carry of every `every`-th layer only, and compute the others
            again in the reverse loop. `None` to keep all.

    Returns:
        A `Step` like that of `_loop.run`, with the outputs of the last layer in the
        place of its carry.
    """
    carry = rule.enter(inputs)
    if every is None:
        found = _loop.run(rule, carry, layers, loop)
    else:
        found = _in_segments(rule, carry, layers, loop, every)
    return found._replace(carry=rule.leave(found.carry))


def _in_segments(rule, carry, layers, loop, every):
    count = loop.depth // every
    weights, constants = (
        _backend.map_tensors(lambda x: _loop.split(x, every), tree)
        for tree in (layers.weights, layers.constants)
    )
    found = _loop.run(
        SegmentRule(rule, every),
        carry,
        layers._replace(weights=weights, constants=constants),
        loop._replace(depth=count, shards=math.gcd(loop.shards, count)),
    )
    outputs, updates = (_backend.map_tensors(_loop.merge, tree) for tree in found[1:3])
    return found._replace(outputs=outputs, updates=updates)
