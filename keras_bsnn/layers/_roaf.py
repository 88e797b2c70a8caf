"""A recurrent network with random orthogonal filters, a whole sequence at once."""

import functools
import inspect
from typing import Any

import keras
import numpy as np
from keras import ops
from typing_extensions import Self

from keras_bsnn import _backend, _facts, _steps
from keras_bsnn._types import Activation, Config, Identifier, Tensor
from keras_bsnn.depth import _checkpoints, _loop, _options
from keras_bsnn.layers._roaf_cell import ROAFCell
from keras_bsnn.ops import _check, roaf

OF_CELL = [*inspect.signature(ROAFCell).parameters][:-1]  # without **kwargs


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAF(keras.layers.RNN):
    """A recurrent network with random orthogonal additive filters.

    It computes what `keras.layers.RNN` does with a `keras_bsnn.layers.ROAFCell`, and
    takes all arguments of `keras.layers.SimpleRNN`. Its loop over time has a backward
    pass of its own, which keeps two tensors a step, the state and the slope of the
    activation, and takes all products while they are in the cache.

    Args:
        units: Positive integer, the size of the state and of the output.
        alpha: Number in [0, 1], the weight of the filter. The network remembers about
            `1 / (1 - alpha)` steps.
        activation: Activation: a name, such as `"relu"` or `"gp_tanh"`, a callable, or
            `None` for the identity. One that is not pointwise takes the loop of
            `keras.layers.RNN`. Defaults to `"tanh"`.
        filter: String, the kind of filter: `"haar"`, `"signed_haar"`, `"rotations"`,
            `"permutation"`, `"shift"` or `"identity"`, as described in
            `keras_bsnn.layers.ROAFDense`. Defaults to `"haar"`.
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
        dropout: Number in [0, 1), the fraction of the features to drop from the inputs
            where the kernel multiplies them. The mask of a sample is the same at all
            steps. Defaults to 0.
        recurrent_dropout: Number in [0, 1), the fraction of the units to drop from the
            state where the recurrent kernel multiplies it, with one mask for all steps.
            The filter always acts on the whole state, so that dropout does not shorten
            the memory. Defaults to 0.
        seed: Integer in [0, 2**32) for dropout. Defaults to `None`: a random seed.
        return_sequences: Boolean, whether to return the output of every step instead of
            the last one. Defaults to `False`.
        return_state: Boolean, whether to return the last state after the output.
            Defaults to `False`.
        go_backwards: Boolean, whether to take the steps from the last to the first, and
            return outputs in this order. Defaults to `False`.
        stateful: Boolean, whether a sequence starts from the last state of the sequence
            at the same position of the previous batch. Defaults to `False`.
        unroll: Boolean, whether to unroll the loop of `keras.layers.RNN`, instead of
            running that of this layer. Defaults to `False`.
        checkpoint_every: Integer `k`, a divisor of the number of steps: only every k-th
            state is kept for the gradient, and the others are computed again. Defaults
            to `None`: all are kept.
        **kwargs: Arguments of `keras.layers.RNN`: `zero_output_for_mask`,
            `activity_regularizer`, `name`, `dtype`, `trainable`.

    Call arguments:
        sequences: Tensor of shape `(batch, steps, features)`.
        initial_state: List of one tensor of shape `(batch, units)`. Defaults to zeros.
        mask: Boolean tensor of shape `(batch, steps)`. The state stays as it is at the
            steps where it is `False`.
        training: Boolean, whether dropout is active. Defaults to `False`.

    Returns:
        Tensor of shape `(batch, units)`, or `(batch, steps, units)` with
        `return_sequences`. With `return_state`, a pair of it and the last state, of
        shape `(batch, units)`. Under every dtype policy, the state is float32 or wider
        from the first step to the last.

    Raises:
        ValueError: If an argument is not as described, or if the number of steps is not
            known or not a multiple of `checkpoint_every`.

    Source: Ceni, arXiv 2210.01245; the loop is this package's.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.ROAF(16, alpha=0.99, return_sequences=True)
    >>> layer(keras.random.normal((8, 20, 3))).shape
    TensorShape([8, 20, 16])
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
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        checkpoint_every: int | None = None,
        **kwargs: Any,
    ):
        flags = {
            "return_sequences": return_sequences,
            "return_state": return_state,
            "go_backwards": go_backwards,
            "stateful": stateful,
            "unroll": unroll,
        }
        flags = {name: _check.boolean(name, value) for name, value in flags.items()}
        if checkpoint_every is not None:
            checkpoint_every = _check.integer("checkpoint_every", checkpoint_every)
        cell = ROAFCell(
            units=units,
            alpha=alpha,
            activation=activation,
            filter=filter,
            beta=beta,
            use_bias=use_bias,
            filter_seed=filter_seed,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            dtype=kwargs.get("dtype"),
        )
        super().__init__(cell, **flags, **kwargs)
        self.checkpoint_every = checkpoint_every
        self.input_spec = [keras.InputSpec(ndim=3)]

    @property
    def units(self) -> int:
        """The size of the state."""
        return self.cell.units

    @property
    def alpha(self) -> float:
        """The weight of the filter."""
        return self.cell.alpha

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: Any,
        mask: Tensor | None,
        training: bool | None = False,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The loop of `keras.layers.RNN`, with a gradient of its own."""
        is_known = _facts.is_pointwise(self.cell.activation)
        if not is_known or self.zero_output_for_mask or self.unroll:
            return super().inner_loop(sequences, initial_state, mask, training)
        (state,) = keras.tree.flatten(initial_state)
        masks = [] if mask is None else keras.tree.flatten(mask)
        found = self._through_time(
            state,
            self._in_time(sequences),
            [ops.expand_dims(self._in_time(mask), -1) for mask in masks],
            training,
        )
        last = found.carry
        if self.return_sequences:
            each = ops.swapaxes(found.outputs[0], 0, 1)
        else:
            each = ops.expand_dims(last, 1)
        return last, each, [last]

    def _in_time(self, x):
        """Steps first, in the order in which they are taken."""
        x = ops.swapaxes(x, 0, 1)
        return ops.flip(x, axis=0) if self.go_backwards else x

    def _through_time(self, state, inputs, masks, training):
        _check_checkpoints(self.checkpoint_every, inputs.shape[0])
        rule = self.cell.rule()
        if self.return_sequences:
            rule = _options.EveryOutput(rule)
        of_inputs, of_state = self.cell.dropout_masks(inputs[0], state, training)
        for dropout_mask in of_inputs:
            inputs = inputs * dropout_mask
        tensors = _backend.map_tensors(_backend.read, self.cell.tensors(of_state))
        steps = tensors._replace(weights=inputs, constants=masks)
        loop = _loop.Loop(ops.shape(inputs)[0], keep=training is not False)
        state = _backend.at_least_float32(state)
        sizes = _checkpoints.sizes_of(self.checkpoint_every, loop.depth)
        return _checkpoints.run(rule, state, steps, loop, sizes)

    def export_steps(self) -> list | None:
        """What the layer computes in evaluation, for `keras_bsnn.export`.

        With ReLU, a `SimpleRNN` of three times the units computes the same, because
        `h = relu(h) - relu(-h)`: its state is `relu(z)` of the pre-activation `z`, and
        both parts of the filtered state. With another activation, the result is `None`.
        """
        if self.cell.activation is not keras.activations.relu or self.return_state:
            return None
        n = self.units
        beta = roaf.beta_of(self.alpha, self.cell.beta)
        state = np.concatenate([beta * np.eye(n), np.eye(n), -np.eye(n)])
        shared = ("return_sequences", "go_backwards", "stateful")
        config = {name: getattr(self, name) for name in shared}
        make = functools.partial(
            keras.layers.SimpleRNN, 3 * n, "relu", dtype=_steps.DTYPE, **config
        )
        kept = _steps.Kept(make, self._weights_with_parts(state))
        return [kept, _steps.Affine(state, np.zeros(n))]

    def _weights_with_parts(self, state):
        """The weights of that layer; `state` maps its state to `h`."""
        cell, n = self.cell, self.units
        kernel = ops.convert_to_numpy(cell.kernel)
        recurrent = ops.convert_to_numpy(cell.recurrent_kernel)
        bias = ops.convert_to_numpy(cell.bias) if cell.use_bias else np.zeros(n)
        filtered = ops.convert_to_numpy(cell.filtered(ops.eye(n)))
        filtered = cell.alpha * filtered
        return [
            np.pad(kernel, ((0, 0), (0, 2 * n))),
            state @ np.concatenate([recurrent, filtered, -filtered], axis=1),
            np.pad(bias, (0, 2 * n)),
        ]

    def get_config(self) -> Config:
        config = super().get_config()
        cell = config.pop("cell")["config"]
        return {
            **config,
            **{name: cell[name] for name in OF_CELL},
            "checkpoint_every": self.checkpoint_every,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


def _check_checkpoints(every, steps):
    if every is not None and (steps is None or steps % every):
        raise ValueError(
            "`checkpoint_every` must be a divisor of the number of steps. "
            f"Received: checkpoint_every={every}, steps={steps}"
        )
