"""What normalizations make of a signal."""

import numpy as np
from keras import layers

from keras_bsnn.shaping import _fields
from keras_bsnn.shaping._fields import Field
from keras_bsnn.shaping._linear import values
from keras_bsnn.shaping._pointwise import check_axis
from keras_bsnn.shaping._registry import register_map
from keras_bsnn.shaping._signal import Signal


def _scaled_and_shifted(layer, signal):
    if getattr(layer, "gamma", None) is not None:
        signal = signal.scaled(values(layer.gamma))
    if getattr(layer, "beta", None) is not None:
        signal = signal.shifted(values(layer.beta))
    return signal


@register_map(layers.BatchNormalization)
def batch_normalization(layer, signal, training=False, mask=None):
    """In training, what all samples and places have in common goes."""
    check_axis(layer, signal)
    if not training:
        deviation = np.sqrt(values(layer.moving_variance) + layer.epsilon)
        shifted = signal.shifted(-values(layer.moving_mean))
        return _scaled_and_shifted(layer, shifted.scaled(1 / deviation))

    def normalized(part):
        common = part.other.over_all_pairs()
        variance = part.same.mean - common + layer.epsilon

        def change(field, root):
            return field.map(lambda x: (x - common) / variance)

        return part.fields(change)._replace(mean=np.zeros(part.same.places))

    parts = tuple(map(normalized, signal.settled.parts))
    return _scaled_and_shifted(layer, Signal(parts))


@register_map(layers.Normalization)
def normalization(layer, signal):
    """By the mean and the variance that it was given, or has adapted to."""
    shifted = signal.shifted(-np.asarray(layer.mean, "float64"))
    return shifted.scaled(np.asarray(layer.variance, "float64") ** -0.5)


@register_map(layers.LayerNormalization)
def layer_normalization(layer, signal):
    check_axis(layer, signal)
    return _scaled_and_shifted(layer, _unit(signal, layer.epsilon, is_centered=True))


@register_map(layers.RMSNormalization)
def rms_normalization(layer, signal):
    check_axis(layer, signal)
    unit = _unit(signal, layer.epsilon, is_centered=False)
    return unit.scaled(values(layer.scale))


@register_map(layers.UnitNormalization)
def unit_normalization(layer, signal):
    check_axis(layer, signal)
    unit = _unit(signal, 0.0, is_centered=False)
    return unit.scaled(signal.channels**-0.5)


def _unit(signal, epsilon, is_centered):
    """With a variance, or a second moment, of one at each place of each input."""
    part = signal.total
    level = part.mean if is_centered else np.zeros(part.mean.shape)
    square = _fields.squared(level)
    variance = part.same.at - square.at + epsilon
    between = _fields.autocorrelation(np.sqrt(variance))

    def change(field, root):
        return Field(
            (field.at - square.at) / variance, (field.across - square.across) / between
        )

    mean = (part.mean - level) / np.sqrt(variance)
    return Signal((part.fields(change)._replace(mean=mean),))


@register_map(layers.GroupNormalization)
def group_normalization(layer, signal):
    """What the channels of a group and all places have in common goes."""
    check_axis(layer, signal)
    part = signal.total
    groups = layer.groups if layer.groups > 0 else part.channels
    inside = part.channels / groups  # channels of a group
    common = part.mean.mean() ** 2

    def shared(field):
        """What the mean over a group adds to each product."""
        return common + (field.over_all_pairs() - common) / inside

    variance = part.same.mean - shared(part.same) + layer.epsilon

    def change(field, root):
        return field.map(lambda x: (x - shared(field)) / variance)

    mean = (part.mean - part.mean.mean()) / np.sqrt(variance)
    unit = Signal((part.fields(change)._replace(mean=mean),))
    return _scaled_and_shifted(layer, unit)
