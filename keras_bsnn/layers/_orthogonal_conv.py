"""Convolutions that are orthogonal and stay orthogonal."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _facts, activations, manifolds
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer, Rule
from keras_bsnn.initializers import DeltaOrthogonal, HaarOrthogonal
from keras_bsnn.layers import _identifiers, _orthogonal_kernel
from keras_bsnn.layers._conv_geometry import Geometry
from keras_bsnn.layers._conv_rule import ConvRule
from keras_bsnn.ops import _check

FORMATS = ("channels_last", "channels_first")


class OrthogonalConv(keras.layers.Layer):
    """What orthogonal convolutions of any number of axes of space share.

    A subclass says `rank`, this number, and whether it is the transpose.
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
        **kwargs: Any,
    ):
        use_bias = _check.boolean("use_bias", use_bias)
        regularizer = _identifiers.get("activity_regularizer", activity_regularizer)
        super().__init__(activity_regularizer=regularizer, **kwargs)
        self.filters = _check.integer("filters", filters)
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.strides = self._sizes("strides", strides)
        self.padding = padding
        self.data_format = _format(data_format)
        self.dilation_rate = self._sizes("dilation_rate", dilation_rate)
        self.groups = _check.integer("groups", groups)
        if self.filters % self.groups:
            kind = f"divisible by groups={self.groups}"
            raise _check.refusal("filters", kind, filters)
        self._geometry = Geometry(
            self.kernel_size, self.strides, self.dilation_rate, padding
        )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = _orthogonal_kernel.initializer(kernel_initializer)
        self.bias_initializer = _identifiers.get("bias_initializer", bias_initializer)
        self.kernel_regularizer = _orthogonal_kernel.regularizer(kernel_regularizer)
        self.bias_regularizer = _identifiers.get("bias_regularizer", bias_regularizer)
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
        self.bias_constraint = _identifiers.get("bias_constraint", bias_constraint)
        self.input_spec = keras.InputSpec(ndim=self.rank + 2)

    def _sizes(self, name, value):
        """One positive integer for each axis of space."""
        values = value if isinstance(value, (tuple, list)) else (value,) * self.rank
        if len(values) != self.rank:
            kind = f"an integer or a tuple of {self.rank}"
            raise _check.refusal(name, kind, value)
        return tuple(_check.integer(name, v) for v in values)

    def build(self, input_shape: Shape) -> None:
        channels = self._channels(input_shape)
        self.input_spec = keras.InputSpec(
            ndim=self.rank + 2, axes={self._channel_axis: channels}
        )
        narrow, wide = channels // self.groups, self.filters // self.groups
        if self.is_transposed:
            narrow, wide = wide, narrow
        middle = max(narrow, wide) if max(self.strides) == 1 else narrow
        self._widths = narrow, middle
        self._geometry.check_channels(narrow, middle)
        self._product = self._geometry.product(narrow, middle)
        if self.is_transposed:
            self._product = self._product.transposed()
        self.inner_kernel = None
        inner, outer = self._initializers()
        if self._geometry.matrices == 2:
            self.inner_kernel = self._matrices("inner_kernel", narrow, middle, inner)
        patch = math.prod(self.strides) * middle
        self.kernel = self._matrices("kernel", patch, wide, outer)
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
        if channels is None:
            raise ValueError(
                f"The axis {self._channel_axis} of the inputs, the channels, must have "
                f"a known size. Received: input_shape={tuple(input_shape)}"
            )
        if channels % self.groups:
            raise ValueError(
                f"The channels of the inputs must be divisible by groups={self.groups}."
                f" Received: input_shape={tuple(input_shape)}"
            )
        return channels

    def _initializers(self):
        """The initializers of the two kernels."""
        given = self.kernel_initializer
        if not isinstance(given, DeltaOrthogonal):
            return given, given
        outer = HaarOrthogonal(given.gain, given.seed)
        if self._geometry.matrices == 1:
            return None, outer
        return _Aligned(self._geometry.columns(*self._widths)), outer

    def _matrices(self, name, rows, columns, initializer):
        return self.add_weight(
            name=name,
            shape=(self.groups, rows, columns),
            initializer=initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    @property
    def _channel_axis(self):
        return 1 if self.data_format == "channels_first" else -1

    def call(self, inputs: Tensor) -> Tensor:
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "`inputs` must be of floating point: cast and standardize them first. "
                f"Received: dtype={keras.backend.standardize_dtype(inputs.dtype)}"
            )
        self.compute_output_shape(tuple(inputs.shape))
        return self._rule().apply(inputs, self.depth_tensors())

    def depth_rule(self) -> Rule | None:
        """The rule that `DepthStack` runs, `None` to have it made from `call`."""
        return self._rule() if _facts.is_pointwise(self.activation) else None

    def _rule(self):
        is_first = self.data_format == "channels_first"
        return ConvRule(
            self._product, self.groups, self.activation, self.compute_dtype, is_first
        )

    def depth_tensors(self) -> Layer:
        """The variables of the layer, as the rule takes them."""
        return Layer([*self.kernels, *([self.bias] if self.use_bias else [])])

    @property
    def kernels(self) -> list[keras.Variable]:
        """The matrices, each of shape `(groups, rows, columns)`."""
        return [k for k in (self.inner_kernel, self.kernel) if k is not None]

    def explicit_kernel(self) -> Tensor:
        """The kernel of an equal plain convolution.

        Returns:
            Tensor of shape `(*kernel_size, channels / groups, filters)`. With
            `padding="same"`, the layer is `keras.layers.Conv2D` with this kernel, and
            with `"circular"` the same of circularly padded images.

        Raises:
            ValueError: If `padding="bounce"`, which no convolution equals.
        """
        if self.padding == "bounce":
            kind = "'circular' or 'same' for a plain convolution to equal the layer"
            raise _check.refusal("padding", kind, self.padding)
        kernels = [_backend.read(k) for k in self.kernels]
        return self._geometry.explicit_kernel(kernels, *self._widths)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *space, _ = input_shape[1:] if self._channel_axis == -1 else (
            *input_shape[2:], None
        )
        sizes = []
        for size, stride in zip(space, self.strides, strict=True):
            if size is not None and self.is_transposed:
                size *= stride
            elif size is not None:
                if size % stride:
                    raise ValueError(
                        f"The images must be divisible by strides={self.strides}. "
                        f"Received: input_shape={tuple(input_shape)}"
                    )
                size //= stride
            sizes.append(size)
        if self._channel_axis == 1:
            return (input_shape[0], self.filters, *sizes)
        return (input_shape[0], *sizes, self.filters)

    def assert_orthogonal(self, eps: float = 1e-5) -> None:
        """Checks that the matrices are orthogonal.

        Then the layer keeps lengths, or, where it has fewer outputs than inputs, those
        that it does not drop. With `padding="same"` it makes no length larger.

        Args:
            eps: Number, the largest `orthogonality_error` that a matrix may have.
                Defaults to 1e-5.

        Raises:
            AssertionError: If the error of one is larger.
        """
        for kernel in self.kernels:
            manifold = manifolds.of(kernel) or manifolds.Stiefel()
            error = float(ops.max(manifold.error(kernel)))
            if not error <= eps:
                raise AssertionError(
                    f"`{kernel.name}` of layer {self.name!r} is not orthogonal: its "
                    f"error is {error:.3g}, more than eps={eps:g}."
                )

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": list(self.dilation_rate),
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
        }


def _format(data_format):
    if data_format is None:
        return keras.config.image_data_format()
    if data_format not in FORMATS:
        kind = f"one of {list(FORMATS)}, or None"
        raise _check.refusal("data_format", kind, data_format, known=FORMATS)
    return data_format


class _Aligned(keras.initializers.Initializer):
    """Matrices with one 1 in each row, in given columns."""

    batched = True

    def __init__(self, columns):
        self.columns = columns

    def __call__(self, shape, dtype=None):
        value = np.zeros(shape)
        value[..., np.arange(len(self.columns)), self.columns] = 1
        return ops.convert_to_tensor(value, dtype)


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalConv2D(OrthogonalConv):
    """d."""

    rank = 2


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalConv1D(OrthogonalConv):
    """d."""

    rank = 1


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalConv2DTranspose(OrthogonalConv):
    """d."""

    rank = 2
    is_transposed = True
