"""Manifolds of weights: which axes are matrices, and how these stay orthogonal.

A constraint has an attribute `manifold`, on which it keeps a weight. Whatever draws,
steps, retracts or checks the weight asks the manifold, instead of guessing from a name
or from the number of axes.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn.ops import _check, orthogonal
from keras_bsnn.ops._haar import haar

__all__ = ["Stiefel", "constrained", "of", "stacked_axes"]

KIND = "a keras_bsnn.manifolds.Stiefel"


@dataclasses.dataclass(frozen=True)
class Stiefel:
    """Weights that are matrices with orthonormal columns, or rows if these are fewer.

    Axes are counted from the end, so that a weight with further axes in front, such as
    that of a `DepthStack`, is a batch of the same matrices. In all methods, `w` is the
    weight, a tensor; results have its shape and dtype unless described otherwise.

    Args:
        rows: Tuple of negative integers, the axes of a weight that are the rows of the
            matrices, flattened in this order. Defaults to `(-2,)`.
        columns: Tuple of negative integers, the axes that are the columns. Defaults to
            `(-1,)`. All axes that are in neither are a batch of independent matrices.

    Raises:
        ValueError: If an axis is not a negative integer, or occurs twice.

    Source: Edelman, Arias, Smith, SIAM J. Matrix Anal. 20 (1998) 303.

    Example:

    The kernel of a convolution, which multiplies patches of 3 x 3 pixels and 4
    channels, as one matrix:

    >>> import keras, keras_bsnn
    >>> manifold = keras_bsnn.manifolds.Stiefel(rows=(-4, -3, -2))
    >>> w = manifold.sample((3, 3, 4, 8), seed=0)
    >>> tuple(manifold.matrices(w).shape), manifold.count(w.shape)
    ((36, 8), 1)
    >>> bool(manifold.error(w) < 1e-5)
    True
    """

    rows: tuple[int, ...] = (-2,)
    columns: tuple[int, ...] = (-1,)

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            object.__setattr__(self, name, _axes(name, getattr(self, name)))
        if len({*self.rows, *self.columns}) < len(self.rows + self.columns):
            kind = f"axes that are not among rows={self.rows}, and each once"
            raise _check.refusal("columns", kind, self.columns)

    def matrices(self, w: Any) -> Any:
        """The weight as its matrices: a tensor of shape `(..., m, n)`.

        The batch axes come first, in their order, then all rows, then all columns. For
        a NumPy array, the result is a NumPy array.

        Args:
            w: The weight, a tensor or an array.

        Raises:
            ValueError: If the weight has too few axes.
        """
        order, sizes = self._order(w.shape), self._sizes(w.shape)
        return _reshaped(_transposed(w, order), sizes)

    def from_matrices(self, matrices: Any, shape: Iterable[int]) -> Any:
        """The inverse of `matrices`: the weight of a given shape.

        Args:
            matrices: Tensor or array of shape `(..., m, n)`.
            shape: Tuple of integers, the shape of the weight.
        """
        shape = tuple(shape)
        order = self._order(shape)
        w = _reshaped(matrices, tuple(shape[axis] for axis in order))
        return _transposed(w, tuple(int(axis) for axis in np.argsort(order)))

    def count(self, shape: Iterable[int]) -> int:
        """The number of matrices of a weight.

        Args:
            shape: Tuple of integers, the shape of the weight.
        """
        return math.prod(self._sizes(tuple(shape))[:-2])

    def sample(
        self,
        shape: Iterable[int],
        gain: float = 1.0,
        seed: int | keras.random.SeedGenerator | None = None,
        dtype: str | None = None,
    ) -> Any:
        """A weight whose matrices are independent and of the Haar distribution.

        Args:
            shape: Tuple of integers, the shape of the weight.
            gain: Number that multiplies the matrices. Defaults to 1.
            seed: Integer or `keras.random.SeedGenerator`. Defaults to `None`: other
                values at each call.
            dtype: String, the dtype. Defaults to `keras.config.floatx()`.

        Returns:
            Tensor of that shape and dtype.

        Source: Mezzadri, Notices of the AMS 54 (2007) 592.
        """
        shape = tuple(shape)
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        q = haar(self._sizes(shape), seed, dtype)
        q = q if gain == 1 else gain * q
        return self.from_matrices(ops.cast(q, dtype), shape)

    def retract(
        self,
        w: Any,
        retraction: Callable[[Any], Any] = orthogonal.newton_schulz,
        tolerance: float = 0.0,
    ) -> Any:
        """Brings a weight that is near the manifold, or anywhere, back to it.

        Args:
            w: The weight, a tensor.
            retraction: Callable that maps matrices `(..., m, n)` to nearly orthogonal
                ones. Where the result is not orthogonal, further steps make it so.
                Defaults to `keras_bsnn.ops.orthogonal.newton_schulz`.
            tolerance: Number in [0, 1), an orthogonality error that may remain, as in
                `keras_bsnn.constraints.Orthogonal`. Defaults to 0.
        """
        x = self.matrices(w)
        if tolerance == 0:
            x = orthogonal.retract(x, retraction)
        else:
            batch = ops.reshape(x, (-1, *x.shape[-2:]))
            x = orthogonal.retract_where_needed(batch, retraction, tolerance)
        return self.from_matrices(x, w.shape)

    def project(self, w: Any, direction: Any) -> Any:
        """Projects a direction to the tangent space at a weight.

        Args:
            w: The weight, a tensor.
            direction: Tensor of the same shape, such as a gradient.
        """
        projected = orthogonal.project_tangent(
            self.matrices(w), self.matrices(direction)
        )
        return self.from_matrices(projected, w.shape)

    def error(self, w: Any) -> Any:
        """The `orthogonality_error` of each matrix, a tensor of the batch axes."""
        return orthogonal.orthogonality_error(self.matrices(w))

    def nearest(self, w: Any) -> Any:
        """The nearest weight on the manifold, up to the rounding of its dtype."""
        # The guard starts from the matrices themselves, and stops within 5e-6.
        near = orthogonal.retract(self.matrices(w), lambda x: x)
        return self.from_matrices(orthogonal.newton_schulz(near), w.shape)

    def to_dict(self) -> dict[str, list[int]]:
        """The arguments, for the config of an object that has a manifold."""
        return {"rows": list(self.rows), "columns": list(self.columns)}

    def _order(self, shape):
        """The axes of a weight, counted from the front: batch, rows, columns."""
        rank, last = len(shape), (*self.rows, *self.columns)
        if rank < -min(last):
            raise ValueError(
                f"A weight with rows={self.rows} and columns={self.columns} must have "
                f"at least {-min(last)} axes. Received: shape={tuple(shape)}"
            )
        matrix = [rank + axis for axis in last]
        return (*(axis for axis in range(rank) if axis not in matrix), *matrix)

    def _sizes(self, shape):
        """The shape of the matrices."""
        sizes = [shape[axis] for axis in self._order(shape)]
        last = len(self.rows) + len(self.columns)
        rows, columns = sizes[-last:][: len(self.rows)], sizes[-len(self.columns) :]
        return (*sizes[:-last], math.prod(rows), math.prod(columns))


def get(identifier: Stiefel | dict[str, list[int]] | None) -> Stiefel:
    """The manifold that an argument stands for: itself, its `to_dict()`, or `None`.

    Args:
        identifier: A `Stiefel`, such a dict, or `None`, which stands for `Stiefel()`.

    Raises:
        ValueError: If the argument is none of these.
    """
    if identifier is None:
        return Stiefel()
    if isinstance(identifier, dict):
        return _check.interpreted("manifold", KIND, lambda x: Stiefel(**x), identifier)
    if not isinstance(identifier, Stiefel):
        raise _check.refusal("manifold", KIND, identifier)
    return identifier


def of(variable: keras.Variable) -> Stiefel | None:
    """The manifold on which the constraint of a variable keeps it.

    Args:
        variable: Variable of a layer, a stack of layers, or a stack of stacks.

    Returns:
        The `manifold` of the constraint, or `None` if it has none.

    Example:

    >>> import keras_bsnn
    >>> layer = keras_bsnn.layers.OrthogonalDense(4)
    >>> layer.build((None, 4))
    >>> keras_bsnn.manifolds.of(layer.kernel)
    Stiefel(rows=(-2,), columns=(-1,))
    >>> keras_bsnn.manifolds.of(layer.bias) is None
    True
    """
    return getattr(getattr(variable, "constraint", None), "manifold", None)


def constrained(
    variables: Iterable[keras.Variable],
) -> Iterator[tuple[keras.Variable, Stiefel]]:
    """Yields each variable that is on a manifold, together with the manifold.

    Args:
        variables: Iterable of variables, such as `model.trainable_variables`.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> pairs = keras_bsnn.manifolds.constrained(model.weights)
    >>> max(float(manifold.error(w).numpy().max()) for w, manifold in pairs) < 1e-5
    True
    """
    for variable in variables:
        manifold = of(variable)
        if manifold is not None:
            yield variable, manifold


def stacked_axes(variable: keras.Variable) -> int:
    """The number of leading axes of a variable that count layers of stacks.

    Args:
        variable: Variable of a layer (then the result is 0), of a `DepthStack` (1), or
            of a stack of stacks (2).

    Example:

    >>> import keras_bsnn
    >>> stack = keras_bsnn.layers.DepthStack(keras_bsnn.layers.OrthogonalDense(4), 3)
    >>> stack.build((None, 4))
    >>> [(w.name, keras_bsnn.manifolds.stacked_axes(w)) for w in stack.weights]
    [('kernel', 1), ('bias', 1)]
    """
    return getattr(variable, "stacked_axes", 0)


def _axes(name, value):
    kind = "a tuple of at least one negative integer"
    if not isinstance(value, (tuple, list)) or not value:
        raise _check.refusal(name, kind, value)
    for axis in value:
        if not isinstance(axis, int) or isinstance(axis, bool) or axis >= 0:
            raise _check.refusal(name, kind, value)
    return tuple(value)


def _transposed(w, order):
    if order == tuple(range(len(order))):
        return w
    return (np if isinstance(w, np.ndarray) else ops).transpose(w, order)


def _reshaped(w, shape):
    if tuple(w.shape) == shape:
        return w
    return (np if isinstance(w, np.ndarray) else ops).reshape(w, shape)
