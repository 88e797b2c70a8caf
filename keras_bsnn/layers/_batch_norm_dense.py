"""A dense layer whose outputs are normalized over the batch."""

from typing import Any

import keras
from keras import ops

from keras_bsnn import _backend, _facts, _steps
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.layers import _orthogonal_kernel
from keras_bsnn.layers._batch_normalized import BatchNormalized
from keras_bsnn.ops import _check


@keras.saving.register_keras_serializable(package="keras_bsnn")
class BatchNormDense(BatchNormalized):
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
        super().__init__(
            activation=activation,
            gain=gain,
            center=center,
            scale_by=scale_by,
            affine=affine,
            shrinkage=shrinkage,
            momentum=momentum,
            epsilon=epsilon,
            **kwargs,
        )
        self.units = units
        self.kernel_initializer = _orthogonal_kernel.initializer(kernel_initializer)
        self.kernel_regularizer = _orthogonal_kernel.regularizer(kernel_regularizer)
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
        self.input_spec = keras.InputSpec(min_ndim=2)

    def build(self, input_shape: Shape) -> None:
        self.kernel = _orthogonal_kernel.add_to(self, input_shape)
        self.add_statistics(self.units)

    def project(self, inputs: Tensor) -> Tensor:
        """The inputs times the kernel, in float32 or wider, before normalization."""
        return _backend.at_least_float32(ops.matmul(inputs, self.kernel))

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
            "kernel_initializer": serialize(self.kernel_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
        }
