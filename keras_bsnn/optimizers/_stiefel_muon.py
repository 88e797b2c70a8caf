"""Steps of bounded operator norm."""

import functools
import math
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_bsnn import _backend, manifolds
from keras_bsnn._types import Config, Tensor, Variables
from keras_bsnn.ops import _check, orthogonal, spectral

TINY = 1e-30  # in a mean of squares, so that no gradient means no step
Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="keras_bsnn")
class StiefelMuon(keras.optimizers.Optimizer):
    """Steps of bounded operator norm, in which orthogonal kernels turn by equal angles.

    The momentum `M` of a kernel is replaced by its `spectral_sign`, whose singular
    values are all about 1: the step is equally long in every direction on which the
    gradients agree. One learning rate `r` then fits networks of any depth and width:

    - the orthogonal kernels of the model, `depth` in number (those of a `DepthStack`
      count each), turn by an angle of about `r / depth` each,
      `W <- W - (r / depth) spectral_sign(T)`, with `T` the projection of `M` to the
      tangent space; the constraint retracts what is left of order `(r / depth)^2`. As
      such layers keep norms, the features after them change by at most `1.2 r` of
      their norm, however many there are;
    - any other matrix, `(fan_in, fan_out)`, moves by `r sqrt(fan_out / fan_in)`: by `r`
      in the operator norm between vectors measured by their root mean square;
    - an embedding, that is, a weight with "embedding" in its path as for
      `keras.optimizers.Muon`, moves by `r` in root mean square in the row of the
      largest momentum, and in proportion in the others, so that rare words do not move
      between their gradients;
    - any other weight moves by `r` in root mean square.

    Each layer of a `DepthStack` is stepped as it would be alone: a kernel is one matrix
    for each layer, and a bias one vector. Only `clipnorm` takes all layers together.

    `keras.optimizers.Muon` itself goes by the number of axes. It does not see matrices
    in the kernels of a stack, and takes its biases for a matrix: use this optimizer, or
    `Stiefel(keras.optimizers.Muon())`.

    Weight decay does not act on orthogonal kernels, which all have the same norm.

    Args:
        learning_rate: `r`, a number or a `LearningRateSchedule`. The size of a step
            does not shrink with the gradient, so a schedule should end near 0. Defaults
            to 0.05; for fewer than a hundred steps, 0.1 or 0.2 is better.
        momentum: Number in [0, 1), the decay of the moving average of the gradients.
            Defaults to 0.9.
        nesterov: Boolean, whether to look ahead by one step of the average. Defaults to
            `True`.
        ns_steps: Integer from 1 to 100, the number of Newton-Schulz steps of
            `spectral_sign`. Defaults to 4.
        name: String, the name of the optimizer. Defaults to `"stiefel_muon"`.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `weight_decay`,
            `clipnorm` and `use_ema`.

    Raises:
        ValueError: If an argument is not as described.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks"
    (2024); the operator norms of Bernstein and Newhouse, arXiv 2409.20325. The tangent
    space and the division by the depth are from this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile(keras_bsnn.optimizers.StiefelMuon(0.05), "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, verbose=0)
    """

    def __init__(
        self,
        learning_rate: Rate = 0.05,
        momentum: float = 0.9,
        nesterov: bool = True,
        ns_steps: int = 4,
        name: str = "stiefel_muon",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        momentum = _check.number(
            "momentum", momentum, "a number in [0, 1)", lambda x: 0 <= x < 1
        )
        nesterov = _check.boolean("nesterov", nesterov)
        ns_steps = orthogonal.check_steps(ns_steps, "ns_steps")
        self.momentum = momentum
        self.nesterov = nesterov
        self.ns_steps = ns_steps

    def build(self, var_list: Variables) -> None:
        if self.built:
            return
        super().build(var_list)
        self.momentums = self.add_optimizer_variables(var_list, "momentum")
        kernels = list(manifolds.constrained(var_list))
        self._orthogonal = {self._get_variable_index(v) for v, _ in kernels}
        self._depth = sum(manifold.count(v.shape) for v, manifold in kernels)
        self._directions = tuple(map(self._direction_of, var_list))

    def _direction_of(self, variable):
        """The function from the values of a weight and its momentum to a step."""
        manifold = manifolds.of(variable)
        if manifold is not None:
            return functools.partial(self._turn, manifold)
        layers = manifolds.stacked_axes(variable)
        if "embedding" in variable.path.lower():
            return functools.partial(_largest_row, layers=layers)
        if len(variable.shape) - layers == 2:
            return self._of_unit_norm
        return functools.partial(_of_unit_mean, layers=layers)

    def _turn(self, manifold, w, momentum):
        tangent = manifold.matrices(manifold.project(w, momentum))
        turn = spectral.spectral_sign(tangent, self.ns_steps) / self._depth
        return manifold.from_matrices(turn, w.shape)

    def _of_unit_norm(self, w, momentum):
        fan_in, fan_out = w.shape[-2:]
        sign = spectral.spectral_sign(momentum, self.ns_steps)
        return math.sqrt(fan_out / fan_in) * sign

    def _use_weight_decay(self, variable):
        index = self._get_variable_index(variable)
        return index not in self._orthogonal and super()._use_weight_decay(variable)

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        # The gradient of an embedding may have some rows only: `read` adds zeros.
        gradient = ops.cast(_backend.read(gradient), variable.dtype)
        momentum = self._averaged(self.momentums[index], gradient)
        step = self._directions[index](_backend.read(variable), momentum)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)

    def _averaged(self, average, gradient):
        keep = self.momentum
        self.assign(average, keep * average + (1 - keep) * gradient)
        if self.nesterov:
            return keep * average + (1 - keep) * gradient
        return _backend.read(average)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "ns_steps": self.ns_steps,
        }


def _of_unit_mean(w, momentum, layers):
    """The momentum, scaled to a mean square of 1 in each layer."""
    axes = tuple(range(layers, len(w.shape)))
    squares = ops.mean(ops.square(momentum), axis=axes, keepdims=True)
    return momentum * ops.rsqrt(squares + TINY)


def _largest_row(w, momentum, layers):
    """The momentum, scaled to a mean square of 1 in its largest row, in each layer."""
    squares = ops.mean(ops.square(momentum), axis=-1, keepdims=True)
    axes = tuple(range(layers, len(w.shape) - 1))
    return momentum * ops.rsqrt(ops.max(squares, axis=axes, keepdims=True) + TINY)
