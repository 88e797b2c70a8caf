"""Convolutions that are orthogonal and stay orthogonal."""

import keras

from keras_bsnn.layers._conv_layer import OrthogonalConv


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalConv2D(OrthogonalConv):
    """A convolution that keeps the length of every image, as a linear map.

    Without activation and bias, the output is `A x`, for a matrix `A` that is a
    convolution and has orthonormal columns, or orthonormal rows where the output has
    fewer numbers than the input: all its singular values are 1.

    The weights are two orthogonal matrices over the channels. Groups of channels are
    shifted by up to half of the kernel before the first, and again before the second,
    which is where different groups meet: that makes all `kernel_size` taps. A
    constraint brings the matrices back after each step of any Keras optimizer.

    Where the strides are larger than 1, patches of their size become channels, and a
    matrix maps these to the filters. `kernel_size=strides` is that alone.

    Args:
        filters: Positive integer, the channels of the output.
        kernel_size: Positive integer or a tuple of two, the height and width of the
            kernel, at least the strides. Defaults to 3.
        strides: Positive integer or a tuple of two, which divide the height and width
            of the images. Defaults to 1.
        padding: String. With `"circular"`, the default, what leaves an image at one
            side enters it at the other. With `"bounce"` half of the channels move
            oppositely to their partners of the other half, and what leaves one at an
            edge enters its partner there, so that opposite sides of an image do not
            meet. Both keep all lengths, for images of any size. `"same"` is zero
            padding, as of `keras.layers.Conv2D`: what is moved out of the image is
            lost, so that the layer makes no length larger, but many smaller.
        data_format: String, `"channels_last"` or `"channels_first"`. Defaults to
            `None`, which stands for `keras.config.image_data_format()`.
        dilation_rate: Positive integer or a tuple of two, the distance of the taps.
            Defaults to 1.
        groups: Positive integer, the number of parts into which channels and filters
            are divided, each with its own convolution. Defaults to 1.
        activation: Activation, as of `OrthogonalDense`. Defaults to `None`.
        use_bias: Boolean, whether to add a bias. Defaults to `True`.
        kernel_initializer: Initializer of the matrices. Defaults to `None`, which
            stands for `keras_bsnn.initializers.HaarOrthogonal()`: the energy of the
            kernel is spread over the taps. `keras_bsnn.initializers.DeltaOrthogonal()`
            makes the explicit kernel, where `kernel_size - strides` is even, a Haar
            matrix on the one tap in the middle (with strides, on the patch there).
        bias_initializer: Initializer of the bias, of shape `(filters,)`. Defaults to
            `"zeros"`.
        kernel_regularizer: Regularizer of each matrix. Defaults to `None`.
        bias_regularizer: Regularizer of the bias. Defaults to `None`.
        activity_regularizer: Regularizer of the output. Defaults to `None`.
        kernel_constraint: Constraint of each matrix. Defaults to `"orthogonal"`, which
            stands for `keras_bsnn.constraints.Orthogonal()`. With `None`, the matrices
            go where the optimizer takes them.
        bias_constraint: Constraint of the bias. Defaults to `None`.
        implementation: String, how to compute the layer: by products and `"shifts"`,
            which is faster on processors, the default; or as `"conv"`, the convolution
            of Keras with the explicit kernel, which does 9 products in the place of 2
            for a kernel of 3 x 3, but may have a fast one on an accelerator. Not for
            the transpose and `padding="bounce"`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` if `data_format="channels_first"`.

    Returns:
        Tensor of shape `(batch, height / strides, width / strides, filters)`, or with
        the filters first.

    Attributes:
        kernels: List of the matrices: `inner_kernel` of shape `(channels, middle)` and
            `kernel` of shape `(patch * middle, filters)`, with an axis of `groups` in
            front if these are more than one. `patch` is the number of pixels of a
            stride, and `middle` the larger of channels and filters, or, with strides,
            the channels. `kernel_size=strides` has no inner kernel.

    Raises:
        ValueError: If an argument is not as described, if the inputs are not of
            floating point, or if a group has too few channels for all taps. With
            `k = kernel_size - strides + 1`, it needs the product of `ceil(k / 2)` over
            the axes before the inner kernel, and of `floor(k / 2) + 1` after it (4 for
            a kernel of 3 x 3, 9 for 5 x 5); with `"bounce"` twice as many, and an even
            number.

    Source: Li et al., arXiv 1911.00937 (orthogonal convolutions as products of
    matrices and shifts); Boissin et al., arXiv 2501.07930 (strides); two matrices for
    all taps, and the bounce, are this package's.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.OrthogonalConv2D(16, activation="gp_tanh")
    >>> layer(keras.random.normal((8, 7, 7, 16))).shape
    TensorShape([8, 7, 7, 16])
    >>> tuple(layer.explicit_kernel().shape)
    (3, 3, 16, 16)
    >>> layer.assert_orthogonal()
    """

    rank = 2
    export_steps = OrthogonalConv.export_steps


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalConv1D(OrthogonalConv):
    """A convolution of sequences that keeps all lengths, as a linear map.

    The arguments are those of `OrthogonalConv2D`, with one axis of space: sizes are
    integers, or tuples of one.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, steps, channels)`, or
            `(batch, channels, steps)` if `data_format="channels_first"`.

    Returns:
        Tensor of shape `(batch, steps / strides, filters)`, or with the filters first.

    Raises:
        ValueError: As of `OrthogonalConv2D`.

    Source: as of `OrthogonalConv2D`.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.OrthogonalConv1D(16, 5, use_bias=False)
    >>> x = keras.random.normal((1, 20, 16))
    >>> squares = [float(keras.ops.sum(z * z)) for z in (x, layer(x))]
    >>> abs(squares[1] / squares[0] - 1) < 1e-5
    True
    """

    rank = 1
    export_steps = OrthogonalConv.export_steps
