"""A recurrent network with random orthogonal filters, a whole sequence at once."""

import functools
import inspect

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _facts, _steps
from keras_bsnn.depth import _checkpoints, _loop, _options
from keras_bsnn.layers._roaf_cell import ROAFCell
from keras_bsnn.ops import _check, roaf

OF_CELL = [*inspect.signature(ROAFCell).parameters][:-1]  # without **kwargs


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAF(keras.layers.RNN):
    """A recurrent layer of `ROAFCell`, used like `keras.layers.SimpleRNN`.

    Its loop over time has a backward pass of its own, which keeps two tensors a step,
    the state and the slope of the activation, and takes all products while they are in
    the cache.

    Args:
        units, alpha, and any other argument of `ROAFCell`.
        return_sequences, return_state, go_backwards, stateful: as of
            `keras.layers.SimpleRNN`.
        checkpoint_every: `k`, a divisor of the number of steps, to keep only each k-th
            state for the gradient, and compute the others again. `None` to keep all.
        kwargs: as of `keras.layers.RNN`.

    Input shape: `(batch, steps, features)`; with a mask `(batch, steps)`, the state
    stays where that is false. Output shape: `(batch, units)`, or `(batch, steps,
    units)` with `return_sequences`. Under each dtype policy the state is float32 or
    wider from the first step to the last.

    Raises:
        ValueError: an argument is not of the kind that `ROAFCell` tells, or the number
            of steps is not a multiple of `checkpoint_every`, or not known.

    Source: Ceni, arXiv 2210.01245; the loop is this package's.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.ROAF(16, alpha=0.99, return_sequences=True)
    >>> layer(keras.random.normal((8, 20, 3))).shape
    TensorShape([8, 20, 16])
    """

    def __init__(
        self,
        units,
        alpha,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        checkpoint_every=None,
        **kwargs,
    ):
        flags = {
            "return_sequences": return_sequences,
            "return_state": return_state,
            "go_backwards": go_backwards,
            "stateful": stateful,
        }
        for name, value in flags.items():
            _check.boolean(name, value)
        if checkpoint_every is not None:
            _check.integer("checkpoint_every", checkpoint_every)
        of_cell = {name: kwargs.pop(name) for name in OF_CELL if name in kwargs}
        cell = ROAFCell(units, alpha, dtype=kwargs.get("dtype"), **of_cell)
        super().__init__(cell, **flags, **kwargs)
        self.checkpoint_every = checkpoint_every
        self.input_spec = [keras.InputSpec(ndim=3)]

    @property
    def units(self):
        return self.cell.units

    @property
    def alpha(self):
        return self.cell.alpha

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """The loop of `keras.layers.RNN`, with a gradient of its own."""
        is_known = _facts.is_pointwise(self.cell.activation)
        if not is_known or self.zero_output_for_mask or self.unroll:
            return super().inner_loop(sequences, initial_state, mask, training)
        (state,) = keras.tree.flatten(initial_state)
        masks = [] if mask is None else keras.tree.flatten(mask)
        found = self._through_time(
            _backend.at_least_float32(state),
            self._in_time(sequences),
            [ops.expand_dims(self._in_time(mask), -1) for mask in masks],
            keep=training is not False,
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

    def _through_time(self, state, inputs, masks, keep):
        _check_checkpoints(self.checkpoint_every, inputs.shape[0])
        rule = self.cell.rule()
        if self.return_sequences:
            rule = _options.EveryOutput(rule)
        tensors = _backend.map_tensors(_backend.read, self.cell.tensors())
        steps = tensors._replace(weights=inputs, constants=masks)
        loop = _loop.Loop(ops.shape(inputs)[0], keep)
        return _checkpoints.run(rule, state, steps, loop, self.checkpoint_every)

    def export_steps(self) -> list | None:
        """What the layer computes in evaluation, for `keras_bsnn.export`.

        With ReLU, a `SimpleRNN` of three times the units does it, because
        `h = relu(h) - relu(-h)`: its state is `relu(z)` of the pre-activation `z`, and
        both parts of the filtered state. `None` with another activation.
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
        filtered = ops.convert_to_numpy(cell.filtered(np.eye(n, dtype="float32")))
        filtered = cell.alpha * filtered
        return [
            np.pad(kernel, ((0, 0), (0, 2 * n))),
            state @ np.concatenate([recurrent, filtered, -filtered], axis=1),
            np.pad(bias, (0, 2 * n)),
        ]

    def get_config(self):
        config = super().get_config()
        cell = config.pop("cell")["config"]
        return {
            **config,
            **{name: cell[name] for name in OF_CELL},
            "checkpoint_every": self.checkpoint_every,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _check_checkpoints(every, steps):
    if every is not None and (steps is None or steps % every):
        raise ValueError(
            "`checkpoint_every` must be a divisor of the number of steps. "
            f"Received: checkpoint_every={every}, steps={steps}"
        )
