"""A dense layer whose outputs are normalized over the batch."""

import math
import warnings

import keras
from keras import ops

from keras_bsnn import _backend, _facts, _steps, activations
from keras_bsnn.layers import _orthogonal_kernel
from keras_bsnn.ops import _check

FORMS = ("std", "norm")


@keras.saving.register_keras_serializable(package="keras_bsnn")
class BatchNormDense(keras.layers.Layer):
    """`activation(gain * normalize(inputs @ kernel))` with an orthogonal kernel.

    Features are normalized over all axes but the last: in training by the statistics of
    the batch, in evaluation by moving averages of these, or by what
    `keras_bsnn.callbacks.RecalibrateBatchNorm` put in their place. Without activation,
    gradients are bounded at any depth, as long as a batch has at least as many linearly
    independent samples as there are units, and with `center` one more.

    Args:
        units: size of the output, a positive integer.
        activation: as of `keras_bsnn.layers.OrthogonalDense`.
        gain: what multiplies the argument of the activation: a number, or an
            initializer of a weight that is not trained, such as
            `keras_bsnn.initializers.DepthDecay()`, by which it differs between the
            layers of a `DepthStack`.
        center: whether to subtract the mean.
        scale_by: `"std"` to divide by the root mean square over the batch, `"norm"` by
            the root of the sum of squares, which is the form of the theory.
        affine: whether to add a trained scale and offset for each feature.
        shrinkage: from 0 to 1, how far the variance of a feature is drawn to the mean
            variance of all, before it is divided by. Where a batch has fewer
            independent samples than there are units, 0 makes gradients explode with
            depth, and values near 1 keep them bounded. A number, or an initializer.
        momentum: of the moving averages.
        epsilon: added to the variance. It may be 0: a feature without variance is 0.
        kernel_initializer: `None` for `HaarOrthogonal()`, or an initializer.
        kernel_constraint: `"orthogonal"` for `keras_bsnn.constraints.Orthogonal()`,
            another constraint, or `None` to let the kernel go.

    Input shape: `(batch, ..., inputs)`, floating point. Output shape:
    `(batch, ..., units)`. Statistics are float32 or wider under each dtype policy.

    Raises:
        ValueError: an argument is not of the kind above.

    Source: Meterez et al., arXiv 2310.02012; with `center=False, scale_by="norm",
    epsilon=0` it is equation 1. The shrinkage is this package's.

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
        units,
        activation=None,
        gain=1.0,
        center=True,
        scale_by="std",
        affine=False,
        shrinkage=0.0,
        momentum=0.99,
        epsilon=1e-5,
        kernel_initializer=None,
        kernel_constraint=None,
        **kwargs,
    ):
        _check.integer("units", units)
        if scale_by not in FORMS:
            raise _check.refusal("scale_by", f"one of {FORMS}", scale_by)
        _check.number("momentum", momentum, "in [0, 1)", lambda x: 0 <= x < 1)
        _check.number("epsilon", epsilon, "a number >= 0", lambda x: x >= 0)
        _check.boolean("center", center)
        _check.boolean("affine", affine)
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
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
        self.input_spec = keras.InputSpec(min_ndim=2)

    def build(self, input_shape):
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
        """A number as it is, or a weight from an initializer."""
        return self._add(name, given, shape=()) if callable(given) else given

    def project(self, inputs):
        """What is normalized, in float32 or wider."""
        return _backend.at_least_float32(ops.matmul(inputs, self.kernel))

    def call(self, inputs, training=False):
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
        """Warns where features cannot become orthogonal; a size may be unknown yet."""
        sizes = shape[:-1]
        if self.shrinkage == 0 and None not in sizes and math.prod(sizes) < self.units:
            warnings.warn(
                f"{self.name}: a batch of {math.prod(sizes)} samples is smaller than "
                f"the width of {self.units} units, so that gradients grow with depth. "
                "Take larger batches, or `shrinkage=0.9`.",
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
        """What a feature of this variance is multiplied by; a constant one by zero."""
        of_all = ops.mean(variance)
        variance = variance + self._shrinkage * (of_all - variance) + self.epsilon
        if self.scale_by == "norm":
            variance = variance * self.samples
        is_constant = variance <= 0
        inverse = ops.rsqrt(ops.where(is_constant, ops.ones_like(variance), variance))
        return ops.where(is_constant, ops.zeros_like(inverse), inverse)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    @property
    def is_affine(self) -> bool:
        """Whether it is an affine map in evaluation: without an activation."""
        return _facts.is_linear(self.activation)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        return _steps.of_dense(self)

    def get_config(self):
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
            "kernel_constraint": serialize(self.kernel_constraint),
        }


def _number_or_initializer(name, value, low=-math.inf, high=math.inf):
    is_bounded = low > -math.inf
    kind = f"a number{f' in [{low}, {high}]' * is_bounded} or an initializer"
    if isinstance(value, (int, float)):
        _check.number(name, value, kind, lambda x: low <= x <= high)
        return value
    found = _check.interpreted(name, kind, keras.initializers.get, value)
    if found is None:
        raise _check.refusal(name, kind, value)
    return found
