"""What layers with additive filters share, over features and over channels."""

from typing import Any

import keras

from keras_bsnn import _facts, activations
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer, Rule
from keras_bsnn.layers import _filters, _identifiers
from keras_bsnn.layers._roaf_rule import ROAFRule
from keras_bsnn.ops import _check, roaf


class ROAFLayer(keras.layers.Layer):
    """`alpha * filter(inputs) + beta * activation(linear(inputs) + bias)`.

    A subclass says what the linear map is, by its rule and the shape of its kernel, and
    calls its width `units` or `filters`.

    Args:
        width: Positive integer, the features or channels of the inputs and outputs.
        alpha, activation, filter, beta, use_bias, shared_filter, filter_seed,
            kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint: As of the layers.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        width: int,
        *,
        alpha: float | None,
        activation: Activation,
        filter: str,
        beta: float | None,
        use_bias: bool,
        shared_filter: bool,
        filter_seed: int | None,
        kernel_initializer: Identifier,
        bias_initializer: Identifier,
        kernel_regularizer: Identifier,
        bias_regularizer: Identifier,
        kernel_constraint: Identifier,
        **kwargs: Any,
    ):
        alpha, beta, use_bias = checked(alpha, beta, filter, use_bias)
        shared_filter = _check.boolean("shared_filter", shared_filter)
        super().__init__(**kwargs)
        self.alpha = alpha
        self.activation = activations.get(activation)
        self.filter = filter
        self.beta = beta
        self.use_bias = use_bias
        self.shared_filter = shared_filter
        self.filter_seed = _filters.seed_of(filter_seed, filter, shared_filter)
        if kernel_initializer is None:
            kernel_initializer = normal_kernel()
        identifiers = {
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
        }
        for name, identifier in identifiers.items():
            setattr(self, name, _identifiers.get(name, identifier))
        self._width = width

    @property
    def _kernel_shape(self):
        return (self._width, self._width)

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=self._kernel_shape,
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self._width,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )
        is_stored = not self.shared_filter
        self._stored, self._made = _filters.parameters(self, self._width, is_stored)

    def call(self, inputs: Tensor) -> Tensor:
        return self._rule().apply(inputs, self.depth_tensors())

    def depth_rule(self) -> Rule | None:
        """The rule that `DepthStack` runs, `None` to have it made from `call`."""
        return self._rule() if _facts.is_pointwise(self.activation) else None

    def _rule(self) -> Rule:
        return ROAFRule(_filters.get(self.filter), *self._of_rule())

    def _of_rule(self) -> tuple[Any, float, float, str]:
        """The arguments of a rule after the filter."""
        beta = roaf.beta_of(self.alpha, self.beta)
        return self.activation, self.alpha, beta, self.compute_dtype

    def depth_tensors(self) -> Layer:
        """The variables of the layer, as the rule takes them."""
        weights = [self.kernel, self.bias] if self.use_bias else [self.kernel]
        return Layer(weights, constants=[*self._stored], fixed=[*self._made])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
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
    """A new initializer of N(0, 1 / fan-in): one alone repeats its values."""
    return keras.initializers.VarianceScaling(
        distribution="untruncated_normal", seed=seed
    )


ALPHA = (
    "a number in [0, 1], the share that is kept from step to step, or from layer to "
    "layer: the memory is about 1 / (1 - alpha) long, so that 0.999 suits 1,000 steps"
)


def checked(
    alpha: float | None, beta: float | None, filter: str, use_bias: bool
) -> tuple[float, float | None, bool]:
    """The arguments that these layers and `ROAFCell` share, as plain Python values."""
    alpha = _check.number("alpha", alpha, ALPHA, lambda x: 0 <= x <= 1)
    if beta is not None:
        beta = _check.number("beta", beta, "a number or None")
    _filters.get(filter)
    return alpha, beta, _check.boolean("use_bias", use_bias)
