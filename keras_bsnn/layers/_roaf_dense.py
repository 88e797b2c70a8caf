"""A dense layer beside a random orthogonal filter of what it receives."""

import keras

from keras_bsnn import _facts, _steps, activations
from keras_bsnn.depth import Layer
from keras_bsnn.layers import _filters, _identifiers
from keras_bsnn.layers._roaf_rule import ROAFRule
from keras_bsnn.ops import _check, roaf


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAFDense(keras.layers.Layer):
    """`alpha * filter(inputs) + beta * activation(inputs @ kernel + bias)`.

    The filter is orthogonal, random and not trained; it carries signals and gradients
    through any number of layers, which add to them. Behind `L` layers with `alpha = 1 -
    c / L` the Jacobian has singular values near `exp(-c)`, and within bounds without
    `L`: see `keras_bsnn.ops.roaf`.

    Args:
        units: size of the inputs and of the output, a positive integer.
        alpha: weight of the filter, a number in [0, 1].
        activation: as of `keras_bsnn.layers.OrthogonalDense`.
        filter: `"haar"`, a random matrix, which takes as much memory as the kernel;
            `"signed_haar"`, one such matrix for all layers of a `DepthStack`, behind
            random signs of each; `"rotations"`, each pair of features turned by a
            random angle; `"permutation"`, a random order; `"shift"`, cyclic, by one,
            without parameters; `"identity"`, to compare with.
        beta: weight of the activation, a number; `None` for `1 - alpha`.
        use_bias: whether to add a bias.
        shared_filter: whether all layers of a `DepthStack` have the same filter. It is
            made from `filter_seed` and not stored.
        filter_seed: an integer in [0, 2**32), or `None` to draw one.
        kernel_initializer: `None` for a normal law of variance `1 / units`, or an
            initializer.
        bias_initializer: an initializer.
        kernel_constraint: a constraint.

    Input shape: `(batch, ..., units)`, floating point. Output shape: the same. Within a
    `DepthStack` the signal is float32 or wider under each dtype policy; one layer
    alone returns the dtype of its policy, in which `alpha` may be rounded to 1.

    Raises:
        ValueError: an argument is not of the kind above, or the inputs have another
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
        units,
        alpha,
        activation="tanh",
        filter="haar",
        beta=None,
        use_bias=True,
        shared_filter=False,
        filter_seed=None,
        kernel_initializer=None,
        bias_initializer="zeros",
        kernel_constraint=None,
        **kwargs,
    ):
        check(units, alpha, beta, filter, use_bias)
        _check.boolean("shared_filter", shared_filter)
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
        self.kernel_constraint = _identifiers.get(
            "kernel_constraint", kernel_constraint
        )
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: units})
        self.supports_masking = True

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.units, self.units),
            initializer=self.kernel_initializer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.units,), initializer=self.bias_initializer
            )
        self._stored, self._made = _filters.parameters(self, not self.shared_filter)

    def call(self, inputs):
        return self._rule().apply(inputs, self.depth_tensors())

    def depth_rule(self):
        """The rule of a stack of these layers, for `DepthStack`."""
        return self._rule() if _facts.is_pointwise(self.activation) else None

    def _rule(self):
        return ROAFRule(
            _filters.get(self.filter),
            self.activation,
            self.alpha,
            roaf.beta_of(self.alpha, self.beta),
            self.compute_dtype,
        )

    def depth_tensors(self):
        """The variables of the layer, as the rule takes them."""
        weights = [self.kernel, self.bias] if self.use_bias else [self.kernel]
        return Layer(weights, constants=[*self._stored], fixed=[*self._made])

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        alpha = float(_steps.rounded(self.alpha))
        filtered = _steps.affine(self, alpha=alpha, beta=0.0)
        inner = _steps.affine(self, alpha=0.0, beta=1.0, activation=None)
        beta = _steps.scaled(roaf.beta_of(self.alpha, self.beta))
        added = [inner, *_steps.of_activation(self.activation), beta]
        return [_steps.Sum(([filtered], added))]

    def get_config(self):
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
            "kernel_constraint": serialize(self.kernel_constraint),
        }


def normal_kernel(seed=None):
    """N(0, 1 / units), a new initializer each time: one gives the same values again."""
    return keras.initializers.VarianceScaling(
        distribution="untruncated_normal", seed=seed
    )


def check(units, alpha, beta, filter, use_bias):
    """Raises `ValueError` for arguments that this layer and `ROAFCell` share."""
    _check.integer("units", units)
    _check.number("alpha", alpha, "a number in [0, 1]", lambda x: 0 <= x <= 1)
    if beta is not None:
        _check.number("beta", beta, "a number or None")
    _filters.get(filter)
    _check.boolean("use_bias", use_bias)
