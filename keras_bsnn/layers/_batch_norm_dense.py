"""A dense layer whose outputs are normalized over the batch."""

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _facts, _steps, activations
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.layers import _orthogonal_kernel
from keras_bsnn.ops import _check

FORMS = ("std", "norm")


@keras.saving.register_keras_serializable(package="keras_bsnn")
class BatchNormDense(keras.layers.Layer):
    """`activation(gain * normalize(inputs @ kernel))` with an orthogonal kernel.

    Features are normalized over all axes but the last: in training by the statistics of
    the batch, in evaluation by moving averages of these, or by the statistics that
    `keras_bsnn.callbacks.RecalibrateBatchNorm` puts in their place. Without activation,
    gradients are bounded at any depth, as long as a batch has at least as many linearly
    independent samples as there are units, and one more with `center`.

    Args:
        units: Positive integer, the size of the output.
        activation: Activation: a name, such as `"tanh"` or `"gp_tanh"`, a callable, or
            an object of `keras_bsnn.activations`. Defaults to `None`, the identity.
        gain: Number that multiplies the argument of the activation, or an initializer
            of a scalar weight that is not trained. By
            `keras_bsnn.initializers.DepthDecay()` it differs between the layers of a
            `DepthStack`. Defaults to 1.
        center: Boolean, whether to subtract the mean. Defaults to `True`.
        scale_by: String: `"std"` to divide by the root of the mean square over the
            batch, `"norm"` to divide by the root of the sum of squares, as the theory
            does. Defaults to `"std"`.
        affine: Boolean, whether to add a trained scale and offset for each feature.
            Defaults to `False`.
        shrinkage: Number in [0, 1], or an initializer: how far the variance of each
            feature is drawn toward the mean variance of all features before dividing by
            it. If a batch has fewer independent samples than there are units, gradients
            explode with depth at 0, and are bounded at values near 1. Defaults to 0.
        momentum: Number in [0, 1), that of the moving averages. Defaults to 0.99.
        epsilon: Number of at least 0, added to the variance. With 0, a feature without
            variance is 0. Defaults to 1e-5.
        kernel_initializer: Initializer of the kernel. Defaults to `None`, which stands
            for `keras_bsnn.initializers.HaarOrthogonal()`.
        kernel_regularizer: Regularizer of the kernel. Defaults to `None`.
        kernel_constraint: Constraint of the kernel, or `"orthogonal"` for
            `keras_bsnn.constraints.Orthogonal()`. Defaults to `None`: the kernel goes
            where the optimizer takes it.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, ..., inputs)`.
        training: Boolean, whether to normalize by the statistics of the batch and to
            update the moving averages. Defaults to `False`.

    Returns:
        Tensor of shape `(batch, ..., units)`. Statistics are float32 or wider under
        every dtype policy.

    Raises:
        ValueError: If an argument is not as described.

    Warns:
        UserWarning: If a batch has fewer samples than there are units, and `shrinkage`
            is 0.

    Source: Meterez et al., arXiv 2310.02012; with `center=False, scale_by="norm",
    epsilon=0` it is equation 1. The shrinkage is from
    this package.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.BatchNormDense(16)
    >>> y = layer(keras.random.normal((64, 16)), training=True)
    >>> bool(abs(keras.ops.std(y) - 1) < 1e-4)
    True
    """

    is_normalizing = True

    def __init__(
        self,
        units: int,
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
        **kwargs: Any,
    ):
        units = _check.integer("units", units)
        if scale_by not in FORMS:
            raise _check.refusal("scale_by", f"one of {FORMS}", scale_by)
        momentum = _check.number(
            "momentum", momentum, "in [0, 1)", lambda x: 0 <= x < 1
        )
        epsilon = _check.number("epsilon", epsilon, "a number >= 0", lambda x: x >= 0)
        center = _check.boolean("center", center)
        affine = _check.boolean("affine", affine)
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.gain = _number_or_initializer("gain", gain)
        self.center = center
        self.scale_by = scale_by
        self.affine = affine
        self.shrinkage = _number_or_initializer("shrinkage", shrinkage, 0, 1)
        self.momentum = momentum
        self.epsilon = epsilon
        self.kernel_initializer = _orthogonal_kernel.initializer(kernel_initializer)
        self.kernel_regularizer = _orthogonal_kernel.regularizer(kernel_regularizer)
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
        self.input_spec = keras.InputSpec(min_ndim=2)

    def build(self, input_shape: Shape) -> None:
        self.kernel = _orthogonal_kernel.add_to(self, input_shape)
        if self.affine:
            self.scale = self._add("scale", "ones", trainable=True)
            self.offset = self._add("offset", "zeros", trainable=True)
        if self.center:
            self.moving_mean = self._add("moving_mean", "zeros")
        self.moving_variance = self._add("moving_variance", "ones")
        if self.scale_by == "norm":
            self.samples = self._add("samples", "ones", shape=())
        self._gain = self._value("gain", self.gain)
        self._shrinkage = self._value("shrinkage", self.shrinkage)

    def _add(self, name, initializer, shape=None, trainable=False):
        return self.add_weight(
            name=name,
            shape=(self.units,) if shape is None else shape,
            initializer=initializer,
            dtype=keras.backend.result_type(self.variable_dtype, "float32"),
            trainable=trainable,
            autocast=False,  # statistics in full precision
            aggregation=None if trainable else "mean",  # or replicas would differ
        )

    def _value(self, name, given):
        """A number as it is; for an initializer, a scalar weight."""
        return self._add(name, given, shape=()) if callable(given) else given

    def project(self, inputs: Tensor) -> Tensor:
        """The inputs times the kernel, in float32 or wider, before normalization."""
        return _backend.at_least_float32(ops.matmul(inputs, self.kernel))

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        x = self._normalized(self.project(inputs), training and self.trainable)
        x = self._gain * x
        if self.affine:
            x = self.scale * x + self.offset
        return self.activation(ops.cast(x, self.compute_dtype))

    def _normalized(self, x, training):
        if not training:
            x = x - self.moving_mean if self.center else x
            return x * self._inverse_scale(self.moving_variance)
        self._check_batch(x.shape)
        axes = list(range(len(x.shape) - 1))
        mean = ops.mean(x, axes) if self.center else 0.0
        x = x - mean
        variance = ops.mean(ops.square(x), axes)
        self._remember(mean, variance, ops.size(x) / self.units)
        return x * self._inverse_scale(variance)

    def _check_batch(self, shape):
        """Warns if features cannot become orthogonal; a size may not be known yet."""
        sizes = shape[:-1]
        if self.shrinkage == 0 and None not in sizes and math.prod(sizes) < self.units:
            warnings.warn(
                f"{self.name}: a batch of {math.prod(sizes)} samples is smaller than "
                f"the width of {self.units} units, so that gradients grow with depth. "
                "Take larger batches, or `shrinkage=0.9`.",
                KerasBSNNWarning,
                stacklevel=2,
            )

    def _remember(self, mean, variance, samples):
        if self.scale_by == "norm":
            self.samples.assign(ops.cast(samples, self.samples.dtype))
        averages = [(self.moving_variance, variance)]
        averages += [(self.moving_mean, mean)] if self.center else []
        for average, new in averages:
            new = ops.cast(ops.stop_gradient(new), average.dtype)
            average.assign(self.momentum * average + (1 - self.momentum) * new)

    def _inverse_scale(self, variance):
        """The factor of a feature of this variance; 0 for a constant feature."""
        of_all = ops.mean(variance)
        variance = variance + self._shrinkage * (of_all - variance) + self.epsilon
        if self.scale_by == "norm":
            variance = variance * self.samples
        is_constant = variance <= 0
        inverse = ops.rsqrt(ops.where(is_constant, ops.ones_like(variance), variance))
        return ops.where(is_constant, ops.zeros_like(inverse), inverse)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    @property
    def is_affine(self) -> bool:
        """Whether the layer is affine in evaluation, as it has no activation."""
        return _facts.is_linear(self.activation)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        return _steps.of_dense(self)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "gain": serialize(self.gain),
            "center": self.center,
            "scale_by": self.scale_by,
            "affine": self.affine,
            "shrinkage": serialize(self.shrinkage),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "kernel_initializer": serialize(self.kernel_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
        }


def _number_or_initializer(name, value, low=-math.inf, high=math.inf):
    is_bounded = low > -math.inf
    kind = f"a number{f' in [{low}, {high}]' * is_bounded} or an initializer"
    if isinstance(value, (int, float, np.number)):
        return _check.number(name, value, kind, lambda x: low <= x <= high)
    found = _check.interpreted(name, kind, keras.initializers.get, value)
    if found is None:
        raise _check.refusal(name, kind, value)
    return found
