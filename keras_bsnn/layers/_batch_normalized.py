"""What layers that normalize their outputs over the batch share."""

import math
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _steps, activations
from keras_bsnn._types import Activation, Config, Identifier, Tensor
from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.ops import _check

FORMS = ("std", "norm")


class BatchNormalized(keras.layers.Layer):
    """`activation(gain * normalize(project(inputs)))`.

    A subclass defines `project`, which returns float32 or wider, has the weights of
    that map, and calls `add_statistics` when it is built. Features are along the `axis`
    of what is projected, 1 or -1.

    Args:
        activation, gain, center, scale_by, affine, shrinkage, momentum, epsilon: As of
            `BatchNormDense`.
        **kwargs: Arguments of the class that comes next.
    """

    is_normalizing = True
    axis: int = -1

    def __init__(
        self,
        *,
        activation: Activation,
        gain: float | Identifier,
        center: bool,
        scale_by: str,
        affine: bool,
        shrinkage: float | Identifier,
        momentum: float,
        epsilon: float,
        **kwargs: Any,
    ):
        if scale_by not in FORMS:
            raise _check.refusal("scale_by", f"one of {FORMS}", scale_by)
        momentum = _check.number(
            "momentum", momentum, "in [0, 1)", lambda x: 0 <= x < 1
        )
        epsilon = _check.number("epsilon", epsilon, "a number >= 0", lambda x: x >= 0)
        center = _check.boolean("center", center)
        affine = _check.boolean("affine", affine)
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.gain = _number_or_initializer("gain", gain)
        self.center = center
        self.scale_by = scale_by
        self.affine = affine
        self.shrinkage = _number_or_initializer("shrinkage", shrinkage, 0, 1)
        self.momentum = momentum
        self.epsilon = epsilon

    def add_statistics(self, features: int) -> None:
        """Adds what is known of each feature, and of all of them."""
        shape = (features,)
        if self.affine:
            self.scale = self._add("scale", "ones", shape, trainable=True)
            self.offset = self._add("offset", "zeros", shape, trainable=True)
        if self.center:
            self.moving_mean = self._add("moving_mean", "zeros", shape)
        self.moving_variance = self._add("moving_variance", "ones", shape)
        if self.scale_by == "norm":
            self.samples = self._add("samples", "ones")
        self._gain = self._value("gain", self.gain)
        self._shrinkage = self._value("shrinkage", self.shrinkage)

    def _add(self, name, initializer, shape=(), trainable=False):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype=keras.backend.result_type(self.variable_dtype, "float32"),
            trainable=trainable,
            autocast=False,  # statistics in full precision
            aggregation=None if trainable else "mean",  # or replicas would differ
        )

    def _value(self, name, given):
        """A number as it is; for an initializer, a scalar weight."""
        return self._add(name, given) if callable(given) else given

    def project(self, inputs: Tensor) -> Tensor:
        """What is normalized, in float32 or wider."""
        raise NotImplementedError(f"{type(self).__name__} must define `project`.")

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        x = self._scaled(self.project(inputs), training and self.trainable)
        return self.activation(ops.cast(x, self.compute_dtype))

    def _scaled(self, x, training):
        """What is projected, normalized and multiplied by all that follows."""
        x = self._gain * self._normalized(x, training)
        if self.affine:
            x = self._along(self.scale, x) * x + self._along(self.offset, x)
        return x

    def _normalization_step(self) -> _steps.Scaled:
        """The normalization in evaluation, as a step for `keras_bsnn.export`.

        It is seen by what becomes of a projection of zeros, and of ones.
        """
        with _backend.float64():
            input_shape = self.get_build_config()["input_shape"]
            wide = _steps.in_float64(self, input_shape)
            shape = [1] * len(input_shape)
            shape[self.axis] = self.moving_variance.shape[0]
            pair = np.stack([np.zeros(shape), np.ones(shape)])
            pair = ops.convert_to_tensor(pair, "float64")
            found = [wide._scaled(x, training=False) for x in pair]
            zero, one = (ops.convert_to_numpy(x).reshape(-1) for x in found)
        return _steps.Scaled(one - zero, zero)

    def _along(self, of_features, x):
        """Numbers of the features, in a shape that broadcasts with a tensor."""
        if self.axis == -1:
            return of_features
        return ops.reshape(of_features, (-1, *[1] * (len(x.shape) - 2)))

    def _normalized(self, x, training):
        if not training:
            x = x - self._along(self.moving_mean, x) if self.center else x
            return x * self._along(self._inverse_scale(self.moving_variance), x)
        self._check_batch(x.shape)
        axes = [*range(len(x.shape))]
        axes.pop(self.axis)
        mean = ops.mean(x, axes) if self.center else 0.0
        x = x - self._along(mean, x) if self.center else x
        variance = ops.mean(ops.square(x), axes)
        self._remember(mean, variance, ops.size(x) / x.shape[self.axis])
        return x * self._along(self._inverse_scale(variance), x)

    def independent_samples(self, sizes: list[int]) -> int:
        """How many samples can be linearly independent, of all that are normalized."""
        return math.prod(sizes)

    def _check_batch(self, shape):
        """Warns if features cannot become orthogonal; a size may not be known yet."""
        sizes = [*shape]
        features = sizes.pop(self.axis)
        if self.shrinkage != 0 or None in sizes:
            return
        samples = self.independent_samples(sizes)
        if samples < features:
            warnings.warn(
                f"{self.name}: a batch of {samples} samples is smaller than the width "
                f"of {features} units, so that gradients grow with depth. "
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

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "gain": serialize(self.gain),
            "center": self.center,
            "scale_by": self.scale_by,
            "affine": self.affine,
            "shrinkage": serialize(self.shrinkage),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
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
