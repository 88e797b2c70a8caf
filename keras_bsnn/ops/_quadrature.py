"""Integrals under N(0, 1) of piecewise smooth functions, to rounding error.

A function is resolved by bisection: an interval is split until a polynomial of
degree 16 represents the function on it. A kink is thereby enclosed in an interval
of width 1e-12, wherever it lies, and derivatives come from the polynomials, so that
a function of NumPy and a function of `keras.ops` are treated alike.

On JAX many of the `keras.ops` compute in float32 whatever they are given. The rounding
of a function is therefore measured, and tolerances follow it.
"""

from typing import NamedTuple

import keras
import numpy as np
from numpy.polynomial import legendre

from keras_bsnn import _backend
from keras_bsnn._types import Array, Pointwise

RANGE = 12.0  # the normal density beyond it is below 1e-32
NARROWEST = 2.0**-40
MOST_INTERVALS = 8192
TAIL = 1e-9

DEGREE = 16


def _gauss_lobatto(degree: int) -> tuple[Array, Array]:
    """Nodes on [-1, 1] and weights. The ends are nodes, so that no kink hides there."""
    # The inner nodes are the zeros of a Jacobi polynomial: eigenvalues of its
    # symmetric tridiagonal matrix (Golub and Welsch, Math. Comp. 23 (1969) 221).
    k = np.arange(1, degree - 1)
    off_diagonal = np.sqrt(k * (k + 2) / ((2 * k + 1) * (2 * k + 3)))
    inner = np.linalg.eigvalsh(np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1))
    nodes = np.concatenate([[-1.0], inner, [1.0]])
    values = legendre.Legendre.basis(degree)(nodes)
    return nodes, 2 / (degree * (degree + 1) * values**2)


NODES, NODE_WEIGHTS = _gauss_lobatto(DEGREE)
# Values at the nodes -> Legendre coefficients -> derivative at the nodes.
COEFFICIENTS = np.linalg.inv(legendre.legvander(NODES, DEGREE))
DERIVATIVE = (
    legendre.legvander(NODES, DEGREE - 1)
    @ legendre.legder(np.eye(DEGREE + 1))
    @ COEFFICIENTS
)


class Resolved(NamedTuple):
    """A function on nodes that integrate it: `sum(weights * values)` is its mean.

    `rounding` is the relative rounding error of the values.
    """

    x: Array
    weights: Array
    values: Array
    derivative: Array
    edges: Array
    rounding: float


def normal_density(x: Array) -> Array:
    """Density of N(0, 1) at each entry of `x`."""
    return np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)


def nodes_between(edges: Array) -> tuple[Array, Array]:
    """Nodes and weights of the intervals between sorted `edges`.

    `edges` has the shape `(..., n + 1)`, the results `(..., n, 17)`.
    """
    half = 0.5 * np.diff(edges)[..., None]
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None]
    return middle + half * NODES, half * NODE_WEIGHTS


def evaluate(function: Pointwise, x: Array) -> Array:
    """Values of `function` at the float64 array `x`, as float64 or else float32."""
    with _backend.float64(), np.errstate(all="ignore"):
        y = keras.ops.convert_to_numpy(function(x))
    if y.shape != x.shape:
        raise ValueError(
            f"`function` must act on each entry alone: for an input of shape {x.shape} "
            f"it returned the shape {y.shape}."
        )
    if y.dtype not in (np.float64, np.float32):
        raise ValueError(
            "`function` must return float64 (or float32, at a loss of precision) for a "
            f"float64 input. It returned {y.dtype}. It was: {function!r}."
        )
    if not np.all(np.isfinite(y)):
        raise ValueError(
            "`function` must be finite with a finite second moment under N(0, 1): at "
            f"x = {x[~np.isfinite(y)].flat[0]:.6g} it returned "
            f"{y[~np.isfinite(y)].flat[0]}."
        )
    return y


def resolve(function: Pointwise, rounding: float = 0.0) -> Resolved:
    """Splits [-12, 12] into intervals on which `function` is a polynomial.

    Args:
        function: A callable that maps a float64 array of any shape to the values at
            its entries.
        rounding: The relative rounding error of the values, a float, of a function
            that is known to be pointwise. Defaults to 0, which measures and checks it.

    Returns:
        A `Resolved`.

    Raises:
        ValueError: `function` is not pointwise, not finite, not continuous, not
            piecewise smooth, or grows so fast that its second moment diverges.
    """
    edges = np.arange(-RANGE, RANGE + 1)
    left, right = edges[:-1], edges[1:]
    scale, found = None, []
    while left.size:
        x, _ = nodes_between(np.stack([left, right], axis=-1))
        x = x[:, 0]
        y = evaluate(function, x)
        if scale is None:
            if not rounding:
                _check_pointwise(function, x, y)
                rounding = _rounding(function)
            scale = np.max(np.abs(y) * normal_density(x))
        done = _is_resolved(x, y, scale, rounding) | (right - left <= NARROWEST)
        found.append((left[done], right[done], y[done].astype(np.float64)))
        left, right = left[~done], right[~done]
        middle = 0.5 * (left + right)
        left, right = np.append(left, middle), np.append(middle, right)
        if left.size > MOST_INTERVALS:
            raise ValueError(
                "`function` must be piecewise smooth: around "
                f"x = {middle[0]:.6g} no polynomial approximates it."
            )
    left, right, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _assemble(left, right, values, rounding)


def _rounding(function: Pointwise) -> float:
    """Relative rounding error of `function`.

    The error is that of float64, or that of float32 if the function computes in float32
    somewhere inside; it is larger where a large constant has been subtracted. On an
    interval of width 1e-6 the function is a polynomial of low degree, so that its
    highest coefficients are rounding.
    """
    x = np.arange(-2.9, 3, 0.613)[:, None] + 2.0**-20 * NODES
    y = evaluate(function, x)
    tail = np.max(np.abs(y @ COEFFICIENTS.T[:, -2:]), axis=-1)
    if not np.all(tail <= 1e-12 * np.max(np.abs(y), axis=-1)):
        return float(np.finfo(np.float32).eps)
    largest = np.max(np.abs(y), initial=np.finfo(np.float64).tiny)
    return max(float(np.finfo(np.float64).eps), float(np.max(tail) / largest))


def _is_resolved(x: Array, y: Array, scale: float, rounding: float) -> Array:
    """Whether a polynomial represents the function, for each interval."""
    tail = np.max(np.abs(y @ COEFFICIENTS.T[:, -2:]), axis=-1)
    size = np.max(np.abs(y), axis=-1)
    density = np.max(normal_density(x), axis=-1)
    return (tail * density <= 50 * rounding * scale) | (tail <= 50 * rounding * size)


def _assemble(left: Array, right: Array, values: Array, rounding: float) -> Resolved:
    """The intervals in order, with weights and derivatives at their nodes."""
    order = np.argsort(left)
    left, right, values = left[order], right[order], values[order]
    _check_continuous(left, right, values, rounding)
    edges = np.append(left, right[-1])
    x, weights = nodes_between(edges)
    weights = weights * normal_density(x)
    outermost = np.sum((weights * values**2)[[0, -1]])
    if outermost > TAIL * np.sum(weights * values**2):
        raise ValueError(
            "`function` must have a finite second moment under N(0, 1): its integral "
            f"has not converged at |x| = {RANGE:g}."
        )
    derivative = values @ DERIVATIVE.T * (2 / (right - left))[:, None]
    return Resolved(x, weights, values, derivative, edges, rounding)


def _check_continuous(
    left: Array, right: Array, values: Array, rounding: float
) -> None:
    """Looks for jumps: nothing else is left on the narrowest intervals."""
    jump = np.where(right - left <= NARROWEST, np.ptp(values, axis=1), 0)
    smallest = (1e-6 + 1e3 * rounding) * np.max(np.abs(values))
    if np.any(broken := jump > smallest):
        raise ValueError(
            "`function` must be continuous, as its derivative is normalized: it jumps "
            f"by {jump[broken][0]:.3g} at x = {left[broken][0]:.6g}."
        )


def _check_pointwise(function: Pointwise, x: Array, y: Array) -> None:
    if not np.allclose(evaluate(function, x[::2, ::3]), y[::2, ::3], rtol=1e-5):
        raise ValueError(
            "`function` must act on each entry alone: its values depend on the other "
            f"entries of its input. It was: {function!r}."
        )
