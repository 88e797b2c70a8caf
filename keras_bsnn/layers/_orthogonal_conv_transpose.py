"""The transpose of an orthogonal convolution."""

import keras

from keras_bsnn.layers._conv_layer import OrthogonalConv


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalConv2DTranspose(OrthogonalConv):
    """The exact transpose of `OrthogonalConv2D`, which makes images larger by strides.

    With the matrices of an `OrthogonalConv2D` from `filters` to `channels`, it maps the
    outputs of that layer back: to its inputs, if it has dropped nothing. Like it, it
    keeps all lengths, or those that it does not drop.

    The arguments are those of `OrthogonalConv2D`; `filters` are the channels of the
    output. With `padding="same"` it is `keras.layers.Conv2DTranspose` with the
    `explicit_kernel`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` if `data_format="channels_first"`.

    Returns:
        Tensor of shape `(batch, height * strides, width * strides, filters)`, or with
        the filters first.

    Raises:
        ValueError: As of `OrthogonalConv2D`.

    Source: as of `OrthogonalConv2D`.

    Example:

    >>> import keras, keras_bsnn
    >>> down = keras_bsnn.layers.OrthogonalConv2D(64, 4, 2, use_bias=False)
    >>> up = keras_bsnn.layers.OrthogonalConv2DTranspose(16, 4, 2, use_bias=False)
    >>> x = keras.random.normal((1, 8, 8, 16))
    >>> up(down(x)).shape
    TensorShape([1, 8, 8, 16])
    >>> up.set_weights(down.get_weights())
    >>> float(keras.ops.max(abs(up(down(x)) - x))) < 1e-4
    True
    """

    rank = 2
    is_transposed = True
    export_steps = OrthogonalConv.export_steps
