"""Convolutions whose weights are orthogonal matrices, as linear maps."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend
from keras_bsnn._convolved import Convolved
from keras_bsnn._types import Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer
from keras_bsnn.layers import (
    _conv_arguments,
    _conv_export,
    _conv_geometry,
    _conv_path,
    _conv_starts,
    _orthogonal_kernel,
)
from keras_bsnn.layers._conv_rule import ConvRule
from keras_bsnn.ops import _check

IMPLEMENTATIONS = ("shifts", "conv")


class MatrixConv(keras.layers.Layer):
    """A layer with a convolution that is a product of orthogonal matrices and moves.

    It has the matrices, and what follows from them; a subclass has a bias or whatever
    comes after the convolution, and says how many axes of space there are, `rank`, and
    whether it is the transpose.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups,
            kernel_initializer, kernel_regularizer, kernel_constraint, implementation:
            As of `OrthogonalConv2D`.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    rank: int
    is_transposed = False

    def __init__(
        self,
        *,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...],
        padding: str,
        data_format: str | None,
        dilation_rate: int | tuple[int, ...],
        groups: int,
        kernel_initializer: Identifier,
        kernel_regularizer: Identifier,
        kernel_constraint: Identifier,
        implementation: str,
        **kwargs: Any,
    ):
        filters = _check.integer("filters", filters)
        groups = _check.integer("groups", groups)
        if filters % groups:
            raise _check.refusal("filters", f"divisible by groups={groups}", filters)
        sizes = {
            "kernel_size": kernel_size,
            "strides": strides,
            "dilation_rate": dilation_rate,
        }
        geometry = _conv_geometry.Geometry(
            **{
                name: _conv_arguments.sizes(name, value, self.rank)
                for name, value in sizes.items()
            },
            padding=padding,
        )
        if implementation not in IMPLEMENTATIONS:
            kind = f"one of {list(IMPLEMENTATIONS)}"
            raise _check.refusal("implementation", kind, implementation)
        if implementation == "conv" and (padding == "bounce" or self.is_transposed):
            kind = "'shifts' for the transpose, and where padding='bounce'"
            raise _check.refusal("implementation", kind, implementation)
        data_format = _conv_arguments.data_format(data_format)
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = geometry.kernel_size
        self.strides = geometry.strides
        self.padding = padding
        self.data_format = data_format
        self.dilation_rate = geometry.dilation_rate
        self.groups = groups
        self.kernel_initializer = _orthogonal_kernel.initializer(kernel_initializer)
        self.kernel_regularizer = _orthogonal_kernel.regularizer(kernel_regularizer)
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
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
        return _conv_arguments.channel_axis(self.data_format)

    @property
    def kernels(self) -> list[keras.Variable]:
        """The matrices, of shape `(rows, columns)`, or with `groups` in front."""
        return [k for k in (self.inner_kernel, self.kernel) if k is not None]

    def linear(self, inputs: Tensor) -> Tensor:
        """The convolution alone, without what a layer does afterwards."""
        self.check_inputs(inputs)
        if self.implementation == "shifts":
            rule = self._rule_of(keras.activations.linear)
            return rule.apply(inputs, Layer(self.kernels))
        kernel = ops.cast(self.explicit_kernel(), self.compute_dtype)
        return _conv_path.convolved(inputs, kernel, self._geometry, self.data_format)

    def check_inputs(self, inputs: Tensor) -> None:
        """Raises `ValueError` for inputs that are no images of a size that fits."""
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "`inputs` must be of floating point: cast and standardize them first. "
                f"Received: dtype={keras.backend.standardize_dtype(inputs.dtype)}"
            )
        self.compute_output_shape(tuple(inputs.shape))

    def _rule_of(self, activation):
        """The convolution, a bias if there is one, and an activation, as a rule."""
        product = self._geometry.product(*self._widths)
        return ConvRule(
            product.transposed() if self.is_transposed else product,
            self.groups,
            activation,
            self.compute_dtype,
            self.data_format == "channels_first",
        )

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

    def _convolved(self, bias: np.ndarray) -> Convolved:
        """The convolution and a bias, as a step for `keras_bsnn.export`."""
        with _backend.float64():
            values = (ops.convert_to_numpy(kernel) for kernel in self.kernels)
            wide = [ops.convert_to_tensor(v, "float64") for v in values]
            kernel = ops.convert_to_numpy(self._explicit(wide))
        return _conv_export.convolved(
            kernel, bias, self._geometry, self.groups, self.is_transposed
        )

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
            "kernel_initializer": serialize(self.kernel_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
            "implementation": self.implementation,
        }
