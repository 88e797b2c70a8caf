"""A convolution whose outputs are normalized over the batch and all places."""

from typing import Any

import keras
import numpy as np

from keras_bsnn import _backend
from keras_bsnn._types import Activation, Identifier, Shape, Tensor
from keras_bsnn.layers import _conv_export
from keras_bsnn.layers._batch_normalized import BatchNormalized
from keras_bsnn.layers._matrix_conv import MatrixConv


@keras.saving.register_keras_serializable(package="keras_bsnn")
class BatchNormConv2D(BatchNormalized, MatrixConv):
    """`activation(gain * normalize(convolution(inputs)))` with orthogonal matrices.

    It is `BatchNormDense` for images: a convolution as of `OrthogonalConv2D`, without
    bias, whose channels are normalized over the batch and all places. In training these
    are the statistics of the batch, in evaluation moving averages of these, or the
    statistics that `keras_bsnn.callbacks.RecalibrateBatchNorm` puts in their place.

    Without activation, gradients are bounded at any depth, as long as a batch has at
    least as many linearly independent images as there are filters, and one more with
    `center`; where the kernel has the size of the strides, such as 1, as many places of
    images.

    Args:
        filters: Positive integer, the channels of the output.
        kernel_size: Positive integer or a tuple of two, at least the strides. Defaults
            to 3.
        strides: Positive integer or a tuple of two, which divide the height and width
            of the images. Defaults to 1.
        padding: String, `"circular"`, `"bounce"` or `"same"`, as of `OrthogonalConv2D`.
            Defaults to `"circular"`.
        data_format: String, `"channels_last"` or `"channels_first"`. Defaults to
            `None`, which stands for `keras.config.image_data_format()`.
        dilation_rate: Positive integer or a tuple of two, the distance of the taps.
            Defaults to 1.
        groups: Positive integer, the number of parts into which channels and filters
            are divided, each with its own convolution. Defaults to 1.
        activation: Activation, as of `BatchNormDense`. Defaults to `None`, the
            identity.
        gain: Number that multiplies the argument of the activation, or an initializer
            of a scalar weight that is not trained. Defaults to 1.
        center: Boolean, whether to subtract the mean. Defaults to `True`.
        scale_by: String: `"std"` to divide by the root of the mean square, `"norm"` to
            divide by the root of the sum of squares. Defaults to `"std"`.
        affine: Boolean, whether to add a trained scale and offset for each channel.
            Defaults to `False`.
        shrinkage: Number in [0, 1], or an initializer: how far the variance of each
            channel is drawn toward the mean variance of all channels before dividing by
            it. Defaults to 0.
        momentum: Number in [0, 1), that of the moving averages. Defaults to 0.99.
        epsilon: Number of at least 0, added to the variance. With 0, a channel without
            variance is 0. Defaults to 1e-5.
        kernel_initializer: Initializer of the matrices, as of `OrthogonalConv2D`.
            Defaults to `None`, which stands for
            `keras_bsnn.initializers.HaarOrthogonal()`.
        kernel_regularizer: Regularizer of each matrix. Defaults to `None`.
        kernel_constraint: Constraint of each matrix, or `"orthogonal"` for
            `keras_bsnn.constraints.Orthogonal()`. Defaults to `None`: they go where the
            optimizer takes them.
        implementation: String, `"shifts"` or `"conv"`, as of `OrthogonalConv2D`.
            Defaults to `"shifts"`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, height, width, channels)`, or
            `(batch, channels, height, width)` if `data_format="channels_first"`.
        training: Boolean, whether to normalize by the statistics of the batch and to
            update the moving averages. Defaults to `False`.

    Returns:
        Tensor of shape `(batch, height / strides, width / strides, filters)`, or with
        the filters first. Statistics are float32 or wider under every dtype policy.

    Attributes:
        kernels: List of the matrices, as of `OrthogonalConv2D`.

    Raises:
        ValueError: If an argument is not as described, if the inputs are not of
            floating point, or if a group has too few channels for all taps.

    Warns:
        UserWarning: If a batch has fewer images, or places of them, than are needed,
            and `shrinkage` is 0.

    Source: Meterez et al., arXiv 2310.02012, for dense layers. The statistics of images
    and the shrinkage are this package's.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.BatchNormConv2D(16)
    >>> y = layer(keras.random.normal((64, 7, 7, 16)), training=True)
    >>> bool(abs(keras.ops.std(y) - 1) < 1e-4)
    True
    """

    rank = 2

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int] = 3,
        strides: int | tuple[int, int] = 1,
        padding: str = "circular",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = 1,
        groups: int = 1,
        activation: Activation = None,
        gain: float | Identifier = 1.0,
        center: bool = True,
        scale_by: str = "std",
        affine: bool = False,
        shrinkage: float | Identifier = 0.0,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        kernel_initializer: Identifier = None,
        kernel_regularizer: Identifier = None,
        kernel_constraint: Identifier = None,
        implementation: str = "shifts",
        **kwargs: Any,
    ):
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            gain=gain,
            center=center,
            scale_by=scale_by,
            affine=affine,
            shrinkage=shrinkage,
            momentum=momentum,
            epsilon=epsilon,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
            implementation=implementation,
            **kwargs,
        )
        self.axis = self._channel_axis

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.add_statistics(self.filters)

    def project(self, inputs: Tensor) -> Tensor:
        """The convolution in float32 or wider, before normalization."""
        return _backend.at_least_float32(self.linear(inputs))

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        convolution = self._convolved(np.zeros(self.filters))
        steps = [convolution, self._normalization_step()]
        return _conv_export.of_images(self, steps)

    def independent_samples(self, sizes: list[int]) -> int:
        """How many samples can be linearly independent, of all that are normalized.

        At each spatial frequency, an image is one sample, and a convolution mixes the
        channels of a frequency in a way of its own. A matrix that is the same at all of
        them sees each place of an image as a sample.
        """
        return sizes[0] if self._geometry.moves else super().independent_samples(sizes)
