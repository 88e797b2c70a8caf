"""A dense layer alongside a random orthogonal filter of its inputs."""

from typing import Any

import keras

from keras_bsnn import _facts, _steps, activations
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer, Rule
from keras_bsnn.layers import _filters, _identifiers
from keras_bsnn.layers._roaf_rule import ROAFRule
from keras_bsnn.ops import _check, roaf


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAFDense(keras.layers.Layer):
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
        units, alpha, beta, use_bias = checked(units, alpha, beta, filter, use_bias)
        shared_filter = _check.boolean("shared_filter", shared_filter)
        super().__init__(**kwargs)
        self.units = units
        self.alpha = alpha
        self.activation = activations.get(activation)
        self.filter = filter
        self.beta = beta
        self.use_bias = use_bias
        self.shared_filter = shared_filter
        self.filter_seed = _filters.seed_of(filter_seed, filter, shared_filter)
        if kernel_initializer is None:
            kernel_initializer = normal_kernel()
        self.kernel_initializer = _identifiers.get(
            "kernel_initializer", kernel_initializer
        )
        self.bias_initializer = _identifiers.get("bias_initializer", bias_initializer)
        self.kernel_regularizer = _identifiers.get(
            "kernel_regularizer", kernel_regularizer
        )
        self.bias_regularizer = _identifiers.get("bias_regularizer", bias_regularizer)
        self.kernel_constraint = _identifiers.get(
            "kernel_constraint", kernel_constraint
        )
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: units})
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.units, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )
        self._stored, self._made = _filters.parameters(self, not self.shared_filter)

    def call(self, inputs: Tensor) -> Tensor:
        return self._rule().apply(inputs, self.depth_tensors())

    def depth_rule(self) -> Rule | None:
        """The rule that `DepthStack` runs, `None` to have it made from `call`."""
        return self._rule() if _facts.is_pointwise(self.activation) else None

    def _rule(self) -> Rule:
        return ROAFRule(
            _filters.get(self.filter),
            self.activation,
            self.alpha,
            roaf.beta_of(self.alpha, self.beta),
            self.compute_dtype,
        )

    def depth_tensors(self) -> Layer:
        """The variables of the layer, as the rule takes them."""
        weights = [self.kernel, self.bias] if self.use_bias else [self.kernel]
        return Layer(weights, constants=[*self._stored], fixed=[*self._made])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        alpha = float(_steps.rounded(self.alpha))
        filtered = _steps.affine(self, alpha=alpha, beta=0.0)
        inner = _steps.affine(self, alpha=0.0, beta=1.0, activation=None)
        beta = _steps.scaled(roaf.beta_of(self.alpha, self.beta))
        added = [inner, *_steps.of_activation(self.activation), beta]
        return [_steps.Sum(([filtered], added))]

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "alpha": self.alpha,
            "activation": keras.activations.serialize(self.activation),
            "filter": self.filter,
            "beta": self.beta,
            "use_bias": self.use_bias,
            "shared_filter": self.shared_filter,
            "filter_seed": self.filter_seed,
            "kernel_initializer": serialize(self.kernel_initializer),
            "bias_initializer": serialize(self.bias_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "bias_regularizer": serialize(self.bias_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
        }


def normal_kernel(seed: int | None = None) -> keras.initializers.Initializer:
    """A new initializer of N(0, 1 / units): one alone repeats its values."""
    return keras.initializers.VarianceScaling(
        distribution="untruncated_normal", seed=seed
    )


ALPHA = (
    "a number in [0, 1], the share that is kept from step to step, or from layer to "
    "layer: the memory is about 1 / (1 - alpha) long, so that 0.999 suits 1,000 steps"
)


def checked(
    units: int, alpha: float | None, beta: float | None, filter: str, use_bias: bool
) -> tuple[int, float, float | None, bool]:
    """The arguments that this layer and `ROAFCell` share, as plain Python values."""
    units = _check.integer("units", units)
    alpha = _check.number("alpha", alpha, ALPHA, lambda x: 0 <= x <= 1)
    if beta is not None:
        beta = _check.number("beta", beta, "a number or None")
    _filters.get(filter)
    return units, alpha, beta, _check.boolean("use_bias", use_bias)
