"""Steps of bounded operator norm."""

import functools
import itertools
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_bsnn import _backend, constraints, manifolds
from keras_bsnn._types import Config, Tensor, Variables
from keras_bsnn.ops import _check, orthogonal, spectral
from keras_bsnn.optimizers._turns import Turns, even_period

TINY = 1e-30  # in a mean of squares, so that no gradient means no step
ONE_STEP = functools.partial(orthogonal.newton_schulz, steps=1)
Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="keras_bsnn")
class StiefelMuon(keras.optimizers.Optimizer):
    """Steps of bounded operator norm, in which orthogonal kernels turn by equal angles.

    The momentum `M` of a kernel is replaced by its `spectral_sign`, whose singular
    values are all about 1: the step is equally long in every direction on which the
    gradients agree. One learning rate `r` then fits networks of any depth and width:

    - the orthogonal kernels of the model, `depth` in number (those of a `DepthStack`
      count each), turn by an angle of about `r / depth` a step. They take turns, at
      most `n = ceil(depth / period)` of them in a step: a kernel is stepped once in
      `k = ceil(depth / n)` steps, by `k` times as much,
      `W <- W - (k r / depth) spectral_sign(T)`, with `T` the projection of `M` to the
      tangent space, and retracted at once to an error below 5e-6. As such layers keep
      norms, the features after them change in a step by at most `1.2 r n k / depth` of
      their norm, which is below `1.2 r (1 + 1 / period)` at any depth, if the kernels
      are square;
    - any other matrix, `(fan_in, fan_out)`, moves by `r sqrt(fan_out / fan_in)`: by `r`
      in the operator norm between vectors measured by their root mean square. So does
      the kernel of a two- or three-dimensional convolution, as a matrix from patches to
      filters, unless it is a depthwise one;
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

    Weight decay does not act on orthogonal kernels, which all have the same norm. Their
    constraint `keras_bsnn.constraints.Orthogonal` is not called, as the steps end on
    the orthogonal matrices: its retraction and tolerance have no effect. It is called
    if `ema_overwrite_frequency` is given, for averages are not orthogonal.

    Args:
        learning_rate: `r`, a number or a `LearningRateSchedule`. The size of a step
            does not shrink with the gradient, so a schedule should end near 0. Defaults
            to 0.05; for fewer than a hundred steps, 0.1 or 0.2 is better.
        momentum: Number in [0, 1), the decay of the moving average of the gradients.
            Defaults to 0.9.
        nesterov: Boolean, whether to look ahead by one step of the average. Defaults to
            `True`.
        ns_steps: Integer from 1 to 100, the number of Newton-Schulz steps of
            `spectral_sign`. Defaults to 3.
        period: Positive integer, the number of steps in which each orthogonal kernel is
            stepped at least once: what the optimizer adds to the cost of a step is
            nearly proportional to its inverse, down to one kernel a step. A training of
            fewer steps leaves some kernels as they are. Defaults to 32.
        name: String, the name of the optimizer. Defaults to `"stiefel_muon"`.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `weight_decay`,
            `clipnorm` and `use_ema`.

    Raises:
        ValueError: If an argument is not as described; or outside of compiled code, if
            a gradient of an orthogonal kernel is not finite.

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
        ns_steps: int = 3,
        period: int = 32,
        name: str = "stiefel_muon",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        momentum = _check.number(
            "momentum", momentum, "a number in [0, 1)", lambda x: 0 <= x < 1
        )
        nesterov = _check.boolean("nesterov", nesterov)
        ns_steps = orthogonal.check_steps(ns_steps, "ns_steps")
        period = _check.integer("period", period)
        self.momentum = momentum
        self.nesterov = nesterov
        self.ns_steps = ns_steps
        self.period = period

    def build(self, var_list: Variables) -> None:
        if self.built:
            return
        super().build(var_list)
        self.momentums = self.add_optimizer_variables(var_list, "momentum")
        kernels = list(manifolds.constrained(var_list))
        counts = [manifold.count(v.shape) for v, manifold in kernels]
        self._depth = sum(counts)
        self._period = even_period(self._depth, self.period)
        firsts = itertools.accumulate(counts, initial=0)
        self._orthogonal = {
            self._get_variable_index(v): (manifold, Turns(first, count, self._period))
            for (v, manifold), first, count in zip(
                kernels, firsts, counts, strict=False
            )
        }
        self._directions = tuple(map(self._direction_of, var_list))

    def _direction_of(self, variable):
        """The function from the momentum of a weight to a step."""
        layers = manifolds.stacked_axes(variable)
        if "embedding" in variable.path.lower():
            return functools.partial(_largest_row, layers=layers)
        axes = variable.shape[layers:]
        if len(axes) == 2 or (len(axes) >= 4 and axes[-1] > 1):
            return functools.partial(self._of_unit_norm, layers=layers)
        return functools.partial(_of_unit_mean, layers=layers)

    def _of_unit_norm(self, momentum, layers):
        """The sign of the momentum as a matrix from patches to filters."""
        shape = momentum.shape
        matrices = ops.reshape(momentum, (*shape[:layers], -1, shape[-1]))
        fan_in, fan_out = matrices.shape[-2:]
        sign = spectral.spectral_sign(matrices, self.ns_steps)
        return math.sqrt(fan_out / fan_in) * ops.reshape(sign, shape)

    def _use_weight_decay(self, variable):
        index = self._get_variable_index(variable)
        return index not in self._orthogonal and super()._use_weight_decay(variable)

    def apply(
        self,
        grads: Iterable[Tensor],
        trainable_variables: Iterable[keras.Variable] | None = None,
    ) -> None:
        with constraints.upheld(not self.ema_overwrite_frequency):
            super().apply(grads, trainable_variables)

    def update_step(
        self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        # The gradient of an embedding may have some rows only: `read` adds zeros.
        gradient = ops.cast(_backend.read(gradient), variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        average = self._averaged(self.momentums[index], gradient)
        if index in self._orthogonal:
            if _backend.is_concrete(average) and not ops.all(ops.isfinite(average)):
                raise ValueError("The gradient of an orthogonal kernel is not finite.")
            angle = rate * (self._period / self._depth)
            values = (_backend.read(variable), average, gradient)
            self.assign(variable, self._turned(*self._orthogonal[index], values, angle))
        else:
            step = self._directions[index](self._momentum(average, gradient))
            self.assign_sub(variable, rate * step)

    def _averaged(self, average, gradient):
        """Continues the moving average of the gradients."""
        keep = self.momentum
        self.assign(average, keep * average + (1 - keep) * gradient)
        return _backend.read(average)

    def _momentum(self, average, gradient):
        keep = self.momentum if self.nesterov else 1.0
        return keep * average + (1 - keep) * gradient

    def _turned(self, manifold, turns, values, angle):
        """A kernel in which those matrices are stepped whose turn it is.

        The values are its own, and those of its average and its gradient.
        """
        w = values[0]
        indices, is_due = turns.due(self.iterations)

        def stepped():
            matrices = [_batch(manifold.matrices(x)) for x in values]
            own, *others = (ops.take(x, indices, axis=0) for x in matrices)
            turned = self._step(own, self._momentum(*others), angle)
            turned = ops.where(is_due[:, None, None], turned, own)
            every = ops.scatter_update(matrices[0], indices[:, None], turned)
            return manifold.from_matrices(every, w.shape)

        if turns.is_always_due:
            return stepped()
        return ops.cond(ops.any(is_due), stepped, lambda: w)

    def _step(self, matrices, momentum, angle):
        tangent = orthogonal.project_tangent(matrices, momentum)
        turn = spectral.spectral_sign(tangent, self.ns_steps)
        return orthogonal.retract(matrices - angle * turn, ONE_STEP)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "ns_steps": self.ns_steps,
            "period": self.period,
        }


def _batch(matrices):
    """Matrices with one axis in front, whatever these had."""
    return ops.reshape(matrices, (-1, *matrices.shape[-2:]))


def _of_unit_mean(momentum, layers):
    """The momentum, scaled to a mean square of 1 in each layer."""
    axes = tuple(range(layers, len(momentum.shape)))
    squares = ops.mean(ops.square(momentum), axis=axes, keepdims=True)
    return momentum * ops.rsqrt(squares + TINY)


def _largest_row(momentum, layers):
    """The momentum, scaled to a mean square of 1 in its largest row, in each layer."""
    squares = ops.mean(ops.square(momentum), axis=-1, keepdims=True)
    axes = tuple(range(layers, len(momentum.shape) - 1))
    return momentum * ops.rsqrt(ops.max(squares, axis=axes, keepdims=True) + TINY)
