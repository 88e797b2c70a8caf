"""An orthogonal convolution by its explicit kernel."""

from keras import ops

from keras_bsnn.layers._moves import part
from keras_bsnn.ops import _check


def convolved(x, kernel, geometry, data_format):
    """The convolution of images with an explicit kernel, by the operation of Keras.

    Args:
        x: Tensor of images.
        kernel: What `geometry.explicit_kernel` returns.
        geometry: A `_conv_geometry.Geometry`, of zero or circular padding.
        data_format: String, as of `keras.ops.conv`.
    """
    padding = "same"
    if geometry.padding == "circular":
        padding = "valid"
        first = 2 if data_format == "channels_first" else 1
        for axis, reach in enumerate(geometry.reach, start=first):
            x = _wrapped(x, axis, reach // 2, reach - reach // 2)
    return ops.conv(
        x, kernel, geometry.strides, padding, data_format, geometry.dilation_rate
    )


def _wrapped(x, axis, before, after):
    """Pads an axis with what is at its other end, however short it is."""
    size = x.shape[axis]
    if size is None:
        kind = "'shifts' for images of unknown size with padding='circular'"
        raise _check.refusal("implementation", kind, "conv")
    left, right = divmod(before, size), divmod(after, size)
    whole = [x] * (left[0] + 1 + right[0])
    head, tail = slice(size - left[1], None), slice(None, right[1])
    return ops.concatenate([part(x, axis, head), *whole, part(x, axis, tail)], axis)
