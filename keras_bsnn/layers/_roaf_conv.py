"""A convolution alongside a random orthogonal filter of its inputs."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _steps
from keras_bsnn._types import Activation, Config, Identifier
from keras_bsnn.depth import Rule
from keras_bsnn.layers import _conv_arguments, _conv_export, _filters
from keras_bsnn.layers._roaf_conv_rule import Moving, ROAFConvRule, Taps
from keras_bsnn.layers._roaf_layer import ROAFLayer
from keras_bsnn.ops import _check, roaf


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAFConv2D(ROAFLayer):
    """`alpha * filter(inputs) + beta * activation(convolution(inputs) + bias)`.

    It is `ROAFDense` for images. The filter is orthogonal, random and not trained. It
    costs no product: the channels change places, by default in a random order, and then
    a fourth of them moves by one pixel to each side, around the image. The convolution
    is trained, has stride 1, and goes around the image as well (circular padding).

    Args:
        filters: Positive integer, the channels of the inputs and of the output.
        kernel_size: Positive integer or a tuple of two, the height and width of the
            kernel. Defaults to 3.
        alpha: Number in [0, 1], the weight of the filter, such as `1 - 1 / depth`.
        activation: Activation, as of `ROAFDense`. Defaults to `"tanh"`.
        filter: String, what is done to the channels before they move, as of
            `ROAFDense`; `"haar"` and `"signed_haar"` cost a product. Defaults to
            `"permutation"`.
        beta: Number, the weight of the activation. Defaults to `None`, which stands for
            `1 - alpha`.
        use_bias: Boolean, whether to add a bias. Defaults to `True`.
        shared_filter: Boolean, whether all layers of a `DepthStack` have the same
            filter. It is then made from `filter_seed` and not stored. Defaults to
            `False`.
        filter_seed: Integer in [0, 2**32) that the filter is drawn from. Defaults to
            `None`: a random seed.
        dilation_rate: Positive integer or a tuple of two, the distance of the taps.
            Defaults to 1.
        data_format: String, `"channels_last"` or `"channels_first"`. Defaults to
            `None`, which stands for `keras.config.image_data_format()`.
        kernel_initializer: Initializer of the kernel, of shape `(*kernel_size, filters,
            filters)`. Defaults to `None`, which stands for a normal distribution of
            variance `1 / (taps * filters)`: the largest singular value of the
            convolution is then near 2, as of the kernel of `ROAFDense`.
        bias_initializer: Initializer of the bias, of shape `(filters,)`. Defaults to
            `"zeros"`.
        kernel_regularizer: Regularizer of the kernel. Defaults to `None`.
        bias_regularizer: Regularizer of the bias. Defaults to `None`.
        kernel_constraint: Constraint of the kernel. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`,
            `activity_regularizer`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, height, width, filters)`, or
            `(batch, filters, height, width)` if `data_format="channels_first"`.

    Returns:
        Tensor of the shape of `inputs`. Within a `DepthStack`, the signal is float32 or
        wider under every dtype policy; a layer by itself returns the dtype of its
        policy, in which `alpha` may be rounded to 1.

    Raises:
        ValueError: If an argument is not as described, or if the inputs have another
            number of channels.

    Source: Ceni, arXiv 2210.01245, equation 4, with a convolution for the matrix. The
    filter of images is this package's.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.ROAFConv2D(16, alpha=0.99)
    >>> layer(keras.random.normal((8, 7, 7, 16))).shape
    TensorShape([8, 7, 7, 16])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int] = 3,
        alpha: float | None = None,
        activation: Activation = "tanh",
        filter: str = "permutation",
        beta: float | None = None,
        use_bias: bool = True,
        shared_filter: bool = False,
        filter_seed: int | None = None,
        dilation_rate: int | tuple[int, int] = 1,
        data_format: str | None = None,
        kernel_initializer: Identifier = None,
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        kernel_constraint: Identifier = None,
        **kwargs: Any,
    ):
        if "strides" in kwargs:
            kind = "left out, as the filter keeps the size of the images"
            raise _check.refusal("strides", kind, kwargs["strides"])
        filters = _check.integer("filters", filters)
        size = _conv_arguments.sizes("kernel_size", kernel_size, 2)
        rate = _conv_arguments.sizes("dilation_rate", dilation_rate, 2)
        data_format = _conv_arguments.data_format(data_format)
        super().__init__(
            filters,
            alpha=alpha,
            activation=activation,
            filter=filter,
            beta=beta,
            use_bias=use_bias,
            shared_filter=shared_filter,
            filter_seed=filter_seed,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            **kwargs,
        )
        self.filters = filters
        self.kernel_size = size
        self.dilation_rate = rate
        self.data_format = data_format
        axis = _conv_arguments.channel_axis(data_format)
        self.input_spec = keras.InputSpec(ndim=4, axes={axis: filters})

    @property
    def _kernel_shape(self):
        return (*self.kernel_size, self.filters, self.filters)

    def _rule(self) -> Rule:
        return ROAFConvRule(
            _filters.get(self.filter),
            *self._of_rule(),
            taps=Taps(self.kernel_size, self.dilation_rate),
            channels_first=self.data_format == "channels_first",
        )

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        zeros = np.zeros(self.filters)
        filtered = _conv_export.around(self._kernel_of_filter(), zeros)
        bias = ops.convert_to_numpy(self.bias) if self.use_bias else zeros
        kernel = ops.convert_to_numpy(self.kernel)
        inner = _conv_export.around(kernel, bias, self.dilation_rate)
        beta = _steps.scaled(roaf.beta_of(self.alpha, self.beta))
        both = _steps.Sum(
            (
                [filtered, _steps.scaled(self.alpha)],
                [inner, *_steps.of_activation(self.activation), beta],
            )
        )
        if self.data_format == "channels_last":
            return [both]
        to, back = _conv_export.moves_of_axes(2)
        return [to, both, back]

    def _kernel_of_filter(self):
        """Of 3 x 3 taps: what becomes of single pixels, seen from the other side."""
        pixels = np.zeros((self.filters, 3, 3, self.filters))
        pixels[:, 1, 1] = np.eye(self.filters)
        layer = self.depth_tensors()
        filter = Moving(_filters.get(self.filter))
        with _backend.float64():
            pixels = ops.convert_to_tensor(pixels, "float64")
            parameters = [_backend.read(z) for z in (*layer.constants, *layer.fixed)]
            moved = filter.apply(pixels, *parameters)
            responses = ops.convert_to_numpy(moved)
        return np.moveaxis(responses[:, ::-1, ::-1], 0, 2)

    def get_config(self) -> Config:
        own = ("filters", "kernel_size", "dilation_rate", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
