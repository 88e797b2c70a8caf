"""Masks of tensors, as Keras attaches them."""

import keras

from keras_bsnn import _backend


class _Mask(keras.layers.Layer):
    """The identity; Keras attaches the mask that it is called with to the result."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return inputs


def masked(tensors, masks):
    """A structure of tensors, each with its mask if it has one."""
    if not _backend.flatten(masks):
        return tensors
    attach = _Mask(name="mask")
    return keras.tree.map_structure(
        lambda x, mask: x if mask is None else attach(x, mask=mask), tensors, masks
    )
