"""What orthogonal convolutions of any number of axes of space share."""

import math
from typing import Any

import keras
from keras import ops

from keras_bsnn import _backend, _facts, activations
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer, Rule
from keras_bsnn.layers import (
    _conv_export,
    _conv_geometry,
    _conv_path,
    _conv_starts,
    _identifiers,
    _orthogonal_kernel,
)
from keras_bsnn.layers._conv_rule import ConvRule
from keras_bsnn.ops import _check

FORMATS = ("channels_last", "channels_first")
IMPLEMENTATIONS = ("shifts", "conv")


class OrthogonalConv(keras.layers.Layer):
    """A convolution whose weights are orthogonal matrices.

    A subclass says how many axes of space there are, `rank`, and whether it is the
    transpose.
    """

    rank: int
    is_transposed = False

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...] = 3,
        strides: int | tuple[int, ...] = 1,
        padding: str = "circular",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        groups: int = 1,
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Identifier = None,
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        activity_regularizer: Identifier = None,
        kernel_constraint: Identifier = "orthogonal",
        bias_constraint: Identifier = None,
        implementation: str = "shifts",
        **kwargs: Any,
    ):
        filters = _check.integer("filters", filters)
        groups = _check.integer("groups", groups)
        use_bias = _check.boolean("use_bias", use_bias)
        if filters % groups:
            raise _check.refusal("filters", f"divisible by groups={groups}", filters)
        sizes = {
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation_rate": dilation_rate,
        }
        geometry = _conv_geometry.Geometry(
            **{name: _sizes(name, value, self.rank) for name, value in sizes.items()},
            padding=padding,
        )
        if implementation not in IMPLEMENTATIONS:
            kind = f"one of {list(IMPLEMENTATIONS)}"
            raise _check.refusal("implementation", kind, implementation)
        if implementation == "conv" and (padding == "bounce" or self.is_transposed):
            kind = "'shifts' for the transpose, and where padding='bounce'"
            raise _check.refusal("implementation", kind, implementation)
        regularizer = _identifiers.get("activity_regularizer", activity_regularizer)
        super().__init__(activity_regularizer=regularizer, **kwargs)
        self.filters = filters
        self.kernel_size = geometry.kernel_size
        self.strides = geometry.strides
        self.padding = padding
        self.data_format = _format(data_format)
        self.dilation_rate = geometry.dilation_rate
        self.groups = groups
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = _orthogonal_kernel.initializer(kernel_initializer)
        self.bias_initializer = _identifiers.get("bias_initializer", bias_initializer)
        self.kernel_regularizer = _orthogonal_kernel.regularizer(kernel_regularizer)
        self.bias_regularizer = _identifiers.get("bias_regularizer", bias_regularizer)
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
        self.bias_constraint = _identifiers.get("bias_constraint", bias_constraint)
        self.input_spec = keras.InputSpec(ndim=self.rank + 2)
        self.implementation = implementation
        self._geometry = geometry

    def build(self, input_shape: Shape) -> None:
        channels = self._channels(input_shape)
        axes = {self._channel_axis: channels}
        self.input_spec = keras.InputSpec(ndim=self.rank + 2, axes=axes)
        ends = (channels // self.groups, self.filters // self.groups)
        narrow, wide = ends[::-1] if self.is_transposed else ends
        is_alone = self._geometry.moves and max(self.strides) == 1
        middle = max(narrow, wide) if is_alone else narrow
        self._geometry.check_channels(narrow, middle)
        self._widths = narrow, middle
        inner, outer = _conv_starts.initializers(
            self.kernel_initializer, self._geometry, self._widths
        )
        self.inner_kernel = None
        if self._geometry.moves:
            self.inner_kernel = self._matrix("inner_kernel", narrow, middle, inner)
        patch = math.prod(self.strides) * middle
        self.kernel = self._matrix("kernel", patch, wide, outer)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _channels(self, input_shape):
        """The channels of the inputs, once they are known to fit."""
        channels = input_shape[self._channel_axis]
        if channels is None or channels % self.groups:
            raise ValueError(
                f"The axis {self._channel_axis} of the inputs, the channels, must have "
                f"a known size that is divisible by groups={self.groups}. Received: "
                f"input_shape={tuple(input_shape)}"
            )
        return channels

    def _matrix(self, name, rows, columns, initializer):
        groups = () if self.groups == 1 else (self.groups,)
        return self.add_weight(
            name=name,
            shape=(*groups, rows, columns),
            initializer=initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    @property
    def _channel_axis(self):
        return 1 if self.data_format == "channels_first" else -1

    @property
    def kernels(self) -> list[keras.Variable]:
        """The matrices, of shape `(rows, columns)`, or with `groups` in front."""
        return [k for k in (self.inner_kernel, self.kernel) if k is not None]

    def call(self, inputs: Tensor) -> Tensor:
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "`inputs` must be of floating point: cast and standardize them first. "
                f"Received: dtype={keras.backend.standardize_dtype(inputs.dtype)}"
            )
        self.compute_output_shape(tuple(inputs.shape))
        if self.implementation == "conv":
            return self._convolved(inputs)
        return self._rule().apply(inputs, self.depth_tensors())

    def _convolved(self, inputs):
        kernel = ops.cast(self.explicit_kernel(), self.compute_dtype)
        x = _conv_path.convolved(inputs, kernel, self._geometry, self.data_format)
        if self.use_bias:
            shape = [1] * (self.rank + 2)
            shape[self._channel_axis] = -1
            x = x + ops.reshape(ops.cast(self.bias, self.compute_dtype), shape)
        return self.activation(x)

    def depth_rule(self) -> Rule | None:
        """The rule that `DepthStack` runs, `None` to have it made from `call`."""
        has_own = self.implementation == "shifts"
        is_known = has_own and _facts.is_pointwise(self.activation)
        return self._rule() if is_known else None

    def _rule(self):
        product = self._geometry.product(*self._widths)
        return ConvRule(
            product.transposed() if self.is_transposed else product,
            self.groups,
            self.activation,
            self.compute_dtype,
            self.data_format == "channels_first",
        )

    def depth_tensors(self) -> Layer:
        """The variables of the layer, as the rule takes them."""
        return Layer([*self.kernels, self.bias] if self.use_bias else self.kernels)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *axes = input_shape
        axes.pop(0 if self._channel_axis == 1 else -1)
        space = self._geometry.output_space(axes, self.is_transposed)
        if self._channel_axis == 1:
            return (batch, self.filters, *space)
        return (batch, *space, self.filters)

    def explicit_kernel(self) -> Tensor:
        """The kernel of an equal plain convolution.

        With `padding="same"` the layer is `keras.layers.Conv2D` with this kernel, or
        `Conv1D`, or `Conv2DTranspose`; with `"circular"`, the same on a torus.

        Returns:
            Tensor of shape `(*kernel_size, channels / groups, filters)`; of the
            transpose, `(*kernel_size, filters / groups, channels)`.

        Raises:
            ValueError: If `padding="bounce"`, which no convolution equals, unless
                `kernel_size=strides`, which reads nothing outside of the image.
        """
        return self._explicit([_backend.read(kernel) for kernel in self.kernels])

    def _explicit(self, kernels):
        if self.padding == "bounce" and self._geometry.moves:
            kind = f"'circular' or 'same' for a convolution to equal {self.name!r}"
            raise _check.refusal("padding", kind, self.padding)
        grouped = [ops.reshape(k, (self.groups, *k.shape[-2:])) for k in kernels]
        return self._geometry.explicit_kernel(grouped, *self._widths)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        with _backend.float64():
            values = (ops.convert_to_numpy(kernel) for kernel in self.kernels)
            wide = [ops.convert_to_tensor(v, "float64") for v in values]
            kernel = ops.convert_to_numpy(self._explicit(wide))
        return _conv_export.steps(self, kernel, self._geometry)

    def assert_orthogonal(self, eps: float = 1e-5) -> None:
        """Checks that the matrices are orthogonal.

        Then the layer without bias and activation keeps all lengths, or, where its
        outputs have fewer numbers than its inputs, those that it does not drop. With
        `padding="same"` it only makes no length larger.

        Args:
            eps: Number, the largest `orthogonality_error` that a matrix may have.
                Defaults to 1e-5.

        Raises:
            AssertionError: If the error of one is larger.
        """
        _orthogonal_kernel.assert_orthogonal(self, self.kernels, eps)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "bias_initializer": serialize(self.bias_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "bias_regularizer": serialize(self.bias_regularizer),
            "activity_regularizer": serialize(self.activity_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
            "bias_constraint": serialize(self.bias_constraint),
            "implementation": self.implementation,
        }


def _sizes(name, value, rank):
    """One positive integer for each axis of space."""
    values = value if isinstance(value, (tuple, list)) else (value,) * rank
    if len(values) != rank:
        raise _check.refusal(name, f"an integer, or a tuple of {rank}", value)
    return tuple(_check.integer(name, size) for size in values)


def _format(data_format):
    if data_format is None:
        return keras.config.image_data_format()
    if data_format not in FORMATS:
        kind = f"one of {list(FORMATS)}, or None"
        raise _check.refusal("data_format", kind, data_format, known=FORMATS)
    return data_format
