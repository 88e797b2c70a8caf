"""What the layers of this package make of a signal."""

import numpy as np

from keras_bsnn import activations, layers
from keras_bsnn.shaping._fields import Field
from keras_bsnn.shaping._iterated import iterated
from keras_bsnn.shaping._kernel_maps import through
from keras_bsnn.shaping._linear import dense
from keras_bsnn.shaping._registry import register_map
from keras_bsnn.shaping._signal import Part, Signal

register_map(layers.OrthogonalDense)(dense)


@register_map(activations.GaussianPoincare, activations.DepthShaped, activations.Gained)
def pointwise(layer, signal):
    return signal.pointwise(layer.call)


@register_map(layers.DepthStack)
def stack(layer, signal, *context, training=False, **named):
    """As its first layer, again and again.

    Raises:
        ValueError: its layers are called with more than their inputs, it returns the
            outputs of all, or some are skipped.
    """
    has_more = context or any(value for value in named.values()) or layer.per_layer
    skips = training and layer.layer_drop is not None
    if has_more or layer.return_sequences or skips:
        raise ValueError(
            f"{layer.name!r} must be called with its inputs alone to have a map, "
            "return the output of its last layer alone, and skip none."
        )
    one, start = layer.layer_at(0), signal.total

    def step(state):
        (after,) = through(one, (Signal((_part(start, state),)),), {}, training)
        return _state(after.total)

    state = iterated(step, _state(start), layer.depth)
    return Signal((_part(start, state),))


def _state(part):
    """The numbers of a signal, as one array."""
    arrays = part.mean, *part.same, *part.other
    return np.concatenate([np.ravel(x) for x in arrays])


def _part(like, state):
    """The signal of such an array."""
    arrays = like.mean, *like.same, *like.other
    ends = np.cumsum([x.size for x in arrays])[:-1]
    mean, *fields = [
        x.reshape(a.shape) for x, a in zip(np.split(state, ends), arrays, strict=True)
    ]
    return Part(like.channels, mean, Field(*fields[:2]), Field(*fields[2:]))
