"""One step of a recurrent network with a random orthogonal filter of its state."""

from typing import Any

import keras
from keras import ops

from keras_bsnn import activations
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer
from keras_bsnn.layers import _filters, _identifiers, _roaf_layer
from keras_bsnn.layers._roaf_rule import ROAFStepRule
from keras_bsnn.ops import _check, roaf


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAFCell(keras.layers.SimpleRNNCell):
    """One step of a recurrent network with a random orthogonal additive filter.

    For inputs `x` and the state `h`, the new state, which is also the output, is
    `alpha * filter(h) + beta * activation(x @ kernel + h @ recurrent_kernel + bias)`.
    The network remembers about `1 / (1 - alpha)` steps.

    `keras_bsnn.layers.ROAF` is the layer that takes a whole sequence with this cell,
    and is faster than `keras.layers.RNN(cell)`. The conventions are those of
    `keras.layers.SimpleRNNCell`.

    Args:
        units: Positive integer, the size of the state and of the output.
        alpha: Number in [0, 1], the weight of the filter.
        activation: Activation: a name, such as `"relu"` or `"gp_tanh"`, a callable, or
            `None` for the identity. Defaults to `"tanh"`.
        filter: String, the kind of filter: `"haar"`, `"signed_haar"`, `"rotations"`,
            `"permutation"`, `"shift"` or `"identity"`, as described in
            `keras_bsnn.layers.ROAFDense`. It is stored with the weights. Defaults to
            `"haar"`.
        beta: Number, the weight of the activation. Defaults to `None`, which stands for
            `1 - alpha`.
        use_bias: Boolean, whether to add a bias. Defaults to `True`.
        filter_seed: Integer in [0, 2**32) that the filter is drawn from. Defaults to
            `None`: a random seed.
        kernel_initializer: Initializer of the kernel, which multiplies the inputs and
            has the shape `(features, units)`. Defaults to `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel, which multiplies the
            state and has the shape `(units, units)`. Defaults to `None`, which stands
            for a normal distribution of variance `1 / units`.
        bias_initializer: Initializer of the bias, of shape `(units,)`. Defaults to
            `"zeros"`.
        kernel_regularizer: Regularizer of the kernel. Defaults to `None`.
        recurrent_regularizer: Regularizer of the recurrent kernel. Defaults to `None`.
        bias_regularizer: Regularizer of the bias. Defaults to `None`.
        kernel_constraint: Constraint of the kernel. Defaults to `None`.
        recurrent_constraint: Constraint of the recurrent kernel. Defaults to `None`.
        bias_constraint: Constraint of the bias. Defaults to `None`.
        dropout: Number in [0, 1), the fraction of the features to drop from `x` where
            the kernel multiplies it. Defaults to 0.
        recurrent_dropout: Number in [0, 1), the fraction of the units to drop from `h`
            where the recurrent kernel multiplies it. The filter always acts on the
            whole state, so that dropout does not shorten the memory. Defaults to 0.
        seed: Integer in [0, 2**32) for dropout. Defaults to `None`: a random seed.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Tensor of shape `(batch, features)`, the inputs of one step.
        states: List of one tensor of shape `(batch, units)`, or the tensor itself.
        training: Boolean, whether dropout is active. The layer that loops over the
            steps draws one mask for each sample of a sequence. Defaults to `False`.

    Returns:
        The output, of shape `(batch, units)`, and the new states in the form in which
        `states` came. Both are of the compute dtype: with a mixed policy, they are
        rounded at each step, which `ROAF` does not do.

    Raises:
        ValueError: If an argument is not as described.

    Source: Ceni, arXiv 2210.01245, the recurrent network.

    Example:

    >>> import keras, keras_bsnn
    >>> cell = keras_bsnn.layers.ROAFCell(16, alpha=0.99)
    >>> keras.layers.RNN(cell)(keras.random.normal((8, 20, 3))).shape
    TensorShape([8, 16])
    """

    def __init__(
        self,
        units: int,
        alpha: float | None = None,
        activation: Activation = "tanh",
        filter: str = "haar",
        beta: float | None = None,
        use_bias: bool = True,
        filter_seed: int | None = None,
        kernel_initializer: Identifier = "glorot_uniform",
        recurrent_initializer: Identifier = None,
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        recurrent_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        kernel_constraint: Identifier = None,
        recurrent_constraint: Identifier = None,
        bias_constraint: Identifier = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        units = _check.integer("units", units)
        alpha, beta, use_bias = _roaf_layer.checked(alpha, beta, filter, use_bias)
        rates = {
            name: _check.number(name, rate, "a number in [0, 1)", lambda x: 0 <= x < 1)
            for name, rate in (
                ("dropout", dropout),
                ("recurrent_dropout", recurrent_dropout),
            )
        }
        if recurrent_initializer is None:
            recurrent_initializer = _roaf_layer.normal_kernel()
        identifiers = {
            "kernel_initializer": kernel_initializer,
            "recurrent_initializer": recurrent_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "recurrent_regularizer": recurrent_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "recurrent_constraint": recurrent_constraint,
            "bias_constraint": bias_constraint,
        }
        super().__init__(
            units,
            activations.get(activation),
            use_bias,
            **{name: _identifiers.get(name, x) for name, x in identifiers.items()},
            **rates,
            seed=_check.seed("seed", seed),
            **kwargs,
        )
        self.alpha = alpha
        self.filter = filter
        self.beta = beta
        self.filter_seed = _filters.seed_of(filter_seed, filter)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.filter_parameters, self._made = _filters.parameters(self, self.units)

    def call(
        self,
        inputs: Tensor,
        states: Tensor | list[Tensor],
        training: bool | None = False,
    ) -> tuple[Tensor, Tensor | list[Tensor]]:
        (state,) = states if isinstance(states, (list, tuple)) else [states]
        of_inputs, of_state = self.dropout_masks(inputs, state, training)
        for mask in of_inputs:
            inputs = inputs * mask
        step = self.tensors(of_state)._replace(weights=inputs)
        x = ops.cast(self.rule().apply(state, step), state.dtype)
        return x, [x] if isinstance(states, (list, tuple)) else x

    def dropout_masks(
        self, inputs: Tensor, state: Tensor, training: bool | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The masks of the inputs and of the state, the same for all steps.

        They are drawn once, and kept until the layer that loops over the steps resets
        them.

        Args:
            inputs: Tensor of shape `(batch, features)`, the inputs of any step.
            state: Tensor of shape `(batch, units)`.
            training: Boolean, whether dropout is active.

        Returns:
            Two lists, of the mask of the inputs and of that of the state. A list is
            empty where nothing is dropped.
        """
        if not training:
            return [], []
        return (
            [self.get_dropout_mask(inputs)] if self.dropout else [],
            [self.get_recurrent_dropout_mask(state)] if self.recurrent_dropout else [],
        )

    def filtered(self, x: Tensor) -> Tensor:
        """The filter alone, applied to a tensor of shape `(..., units)`."""
        filter = _filters.get(self.filter)
        return filter.apply(x, *self.filter_parameters, *self._made)

    def rule(self) -> ROAFStepRule:
        """What a step does, and its gradient."""
        return ROAFStepRule(
            _filters.get(self.filter),
            self.activation,
            self.alpha,
            roaf.beta_of(self.alpha, self.beta),
            self.compute_dtype,
        )

    def tensors(self, dropout_masks: list[Tensor]) -> Layer:
        """What all steps share, as the rule takes it, with the mask of the state."""
        bias = [self.bias] if self.use_bias else []
        parameters = [*self.filter_parameters, *self._made]
        return Layer(
            shared=[self.kernel, self.recurrent_kernel, *bias],
            fixed=(parameters, dropout_masks),
        )

    def get_config(self) -> Config:
        own = ("alpha", "filter", "beta", "filter_seed")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in own},
        }
