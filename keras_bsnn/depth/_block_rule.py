"""The rule of a block that has none of its own."""

from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth._rule import Rule, Step


class BlockRule(Rule):
    """The rule of any block, from its call.

    The outputs of a layer are its loss, a list of none or one, and what the block
    returns besides its first output.

    Args:
        template: a `Template`.
        training: as in the call of a layer.
        flags, block: as for `Template.call`.
    """

    unroll = 4

    def __init__(self, template, training, flags, block=None):
        self.template = template
        self.options = training, flags, block

    def step(self, carry, layer):
        outputs, losses, updates = self.template.call(carry, layer, *self.options)
        following, extras = self.template.split(outputs)
        # In mixed precision, a functional model may return float32.
        carry = _backend.map_tensors(_cast_like, following, carry)
        return Step(carry, (_total(losses), extras), updates)


def _cast_like(x, like):
    return ops.cast(x, like.dtype)


def _total(losses):
    """The sum, in float32 or wider, as a list; an empty one if there is no loss."""
    each = [ops.sum(_backend.at_least_float32(loss)) for loss in losses]
    return [sum(each)] if each else []
