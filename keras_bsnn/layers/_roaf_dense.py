"""A dense layer alongside a random orthogonal filter of its inputs."""

from typing import Any

import keras

from keras_bsnn import _steps
from keras_bsnn._types import Activation, Config, Identifier
from keras_bsnn.layers._roaf_layer import ROAFLayer
from keras_bsnn.ops import _check, roaf


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAFDense(ROAFLayer):
    """`alpha * filter(inputs) + beta * activation(inputs @ kernel + bias)`.

    The filter is orthogonal, random and not trained; it carries signals and gradients
    through any number of layers, which add to them. After `L` layers with `alpha = 1 -
    c / L`, the Jacobian has singular values near `exp(-c)`, within bounds that do not
    depend on `L`: see `keras_bsnn.ops.roaf`.

    Args:
        units: Positive integer, the size of the inputs and of the output.
        alpha: Number in [0, 1], the weight of the filter.
        activation: Activation: a name, such as `"relu"` or `"gp_tanh"`, a callable, or
            an object of `keras_bsnn.activations`; `None` for the identity. Defaults to
            `"tanh"`.
        filter: String, the kind of filter. Defaults to `"haar"`.

            - `"haar"`: a random matrix, which takes as much memory as the kernel.
            - `"signed_haar"`: random signs of each layer, and then one such matrix for
              all layers of a `DepthStack`.
            - `"rotations"`: a rotation of each pair of features by a random angle.
            - `"permutation"`: a random order of the features.
            - `"shift"`: a cyclic shift of the features by one, without parameters.
            - `"identity"`: no change of the features, for comparison.
        beta: Number, the weight of the activation. Defaults to `None`, which stands for
            `1 - alpha`.
        use_bias: Boolean, whether to add a bias. Defaults to `True`.
        shared_filter: Boolean, whether all layers of a `DepthStack` have the same
            filter. It is then made from `filter_seed` and not stored. Defaults to
            `False`.
        filter_seed: Integer in [0, 2**32) that the filter is drawn from. Defaults to
            `None`: a random seed.
        kernel_initializer: Initializer of the kernel, of shape `(units, units)`.
            Defaults to `None`, which stands for a normal distribution of variance
            `1 / units`.
        bias_initializer: Initializer of the bias, of shape `(units,)`. Defaults to
            `"zeros"`.
        kernel_regularizer: Regularizer of the kernel. Defaults to `None`.
        bias_regularizer: Regularizer of the bias. Defaults to `None`.
        kernel_constraint: Constraint of the kernel. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`,
            `activity_regularizer`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, ..., units)`.

    Returns:
        Tensor of the shape of `inputs`. Within a `DepthStack`, the signal is float32 or
        wider under every dtype policy; a layer by itself returns the dtype of its
        policy, in which `alpha` may be rounded to 1.

    Raises:
        ValueError: If an argument is not as described, or if the inputs have another
            number of features.

    Source: Ceni, arXiv 2210.01245, equation 4 of the feed-forward network.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.ROAFDense(32, alpha=0.99, filter="shift")
    >>> layer(keras.random.normal((8, 32))).shape
    TensorShape([8, 32])
    """

    def __init__(
        self,
        units: int,
        alpha: float | None = None,
        activation: Activation = "tanh",
        filter: str = "haar",
        beta: float | None = None,
        use_bias: bool = True,
        shared_filter: bool = False,
        filter_seed: int | None = None,
        kernel_initializer: Identifier = None,
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        kernel_constraint: Identifier = None,
        **kwargs: Any,
    ):
        units = _check.integer("units", units)
        super().__init__(
            units,
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
        self.units = units
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: units})
        self.supports_masking = True

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        alpha = float(_steps.rounded(self.alpha))
        filtered = _steps.affine(self, alpha=alpha, beta=0.0)
        inner = _steps.affine(self, alpha=0.0, beta=1.0, activation=None)
        beta = _steps.scaled(roaf.beta_of(self.alpha, self.beta))
        added = [inner, *_steps.of_activation(self.activation), beta]
        return [_steps.Sum(([filtered], added))]

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units}
