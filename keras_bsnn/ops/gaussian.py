"""Gaussian-Poincaré normalization: moments, constants, length map and kernel map.

Everything here is float64 NumPy and is computed once, when a layer is made.
"""

import functools
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.polynomial import polynomial

from keras_bsnn._types import Array, Pointwise
from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.ops import _check, _shaping
from keras_bsnn.ops._integrals import (
    MEHLER_LIMIT,
    as_function,
    correlated_mean,
    hermite_squares,
    resolved,
)

__all__ = [
    "Moments",
    "gp_constants",
    "kernel_map",
    "length_map",
    "length_slope",
    "moments",
    "shaping_epsilon",
]

ROOTS = ("stable", "plus", "minus")


class Moments(NamedTuple):
    """Moments of `f(z)` and `f'(z)` for `z ~ N(0, 1)`."""

    mean: float
    second_moment: float
    derivative_mean: float
    derivative_second_moment: float


def moments(function: str | Pointwise) -> Moments:
    """First and second moments of a function and its derivative under N(0, 1).

    Args:
        function: The name of a Keras activation, or a pointwise callable that is
            written with `keras.ops` or with NumPy. It may have kinks.

    Returns:
        `Moments`, floats that are accurate to about 1e-12 relative to the second
        moments (1e-6 for a function that computes in float32, as some `keras.ops` do on
        JAX).

    Raises:
        ValueError: `function` is not pointwise, continuous, piecewise smooth and of
            finite second moment.

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> round(gaussian.moments("relu").second_moment, 6)
    0.5
    """
    r = resolved(function)
    return Moments(
        *(
            float(np.sum(r.weights * integrand))
            for integrand in (r.values, r.values**2, r.derivative, r.derivative**2)
        )
    )


def gp_constants(
    function: str | Pointwise, root: str = "stable"
) -> tuple[float, float]:
    """The Gaussian-Poincaré constants `(a, b)` of a function `f`.

    `phi = a f + b` satisfies `E[phi(z)^2] = E[phi'(z)^2] = 1` for `z ~ N(0, 1)`, with
    `a = 1 / sqrt(E[f'^2])` and `b = -a E[f] +- sqrt(1 - a^2 Var f)`.

    Args:
        function: The name of a Keras activation, or a pointwise callable.
        root: `"plus"` or `"minus"`, the sign in `b`, or `"stable"`, the root with the
            smaller slope of the length map. `"stable"` warns if even that slope is not
            below 1. Defaults to `"stable"`.

    Returns:
        The floats `(a, b)`.

    Raises:
        ValueError: `root` is unknown, or `function` has no Gaussian-Poincaré form: it
            is constant or discontinuous, or its moments diverge.

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169, the definition of GPN functions. To
    choose the root by the length map is this package's idea.

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> a, b = gaussian.gp_constants("relu", root="minus")
    >>> round(a, 5), round(b, 5)
    (1.41421, -1.12838)
    """
    check_root(root)
    if root != "stable":
        return _constants(function, root)
    candidates = [_constants(function, sign) for sign in ("plus", "minus")]
    slopes = [_slope(function, a, b) for a, b in candidates]
    smaller = int(slopes[1] < slopes[0] - 1e-9)  # an odd function ties: plus
    if slopes[smaller] > 1 - 1e-9:
        warnings.warn(
            f"{_name(function)} has no stable Gaussian-Poincaré root: the slope of its "
            f"length map is {slopes[smaller]:.4f}, which is not below 1, so that "
            "deviations of the signal's length grow with depth.",
            KerasBSNNWarning,
            stacklevel=2,
        )
    return candidates[smaller]


def check_root(root: Any) -> None:
    """Raises `ValueError` unless `root` names a choice of the shift."""
    if root not in ROOTS:
        raise _check.refusal("root", f"one of {ROOTS}", root)


def _constants(function: str | Pointwise, sign: str) -> tuple[float, float]:
    m = moments(function)
    if m.derivative_second_moment <= 1e-24 * m.second_moment:
        raise ValueError(
            "`function` must not be constant: a constant has no Gaussian-Poincaré "
            f"form. Received: function={_name(function)}"
        )
    a = m.derivative_second_moment**-0.5
    variance = m.second_moment - m.mean**2
    # The Gaussian-Poincaré inequality; an affine function meets it with equality.
    spread = np.sqrt(max(0.0, 1.0 - a**2 * variance))
    return a, float(-a * m.mean + (spread if sign == "plus" else -spread))


def _slope(function: str | Pointwise, a: float, b: float) -> float:
    """Slope at 1 of the length map of `a f + b`."""
    r = resolved(function)
    phi = a * r.values + b
    return float(np.sum(r.weights * r.x * phi * a * r.derivative))


def length_slope(function: str | Pointwise) -> float:
    """Slope of the length map at its fixed point 1, for a GP-normalized function.

    The length map `V(q) = E[phi(sqrt(q) z)^2]` takes the mean squared activation from
    one layer to the next, and `V'(1) = E[z phi(z) phi'(z)]`. If the slope is below 1,
    deviations of the length die out with depth; if it is above 1, they grow.

    Args:
        function: A pointwise callable, name or layer, for instance a
            `GaussianPoincare`. It is taken as it is, without normalization.

    Returns:
        The slope as a float.

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> a, b = gaussian.gp_constants("relu", root="plus")
    >>> relu = lambda x: x * (x > 0)
    >>> round(gaussian.length_slope(lambda x: a * relu(x) + b), 6)
    1.0
    """
    return _slope(function, 1.0, 0.0)


def length_map(function: str | Pointwise, q: npt.ArrayLike) -> float | Array:
    """`E[f(sqrt(q) z)^2]` for a standard normal `z`.

    The length map takes the mean squared activation from one layer to the next.

    Args:
        function: The name of a Keras activation, or a pointwise callable.
        q: A float or an array of positive numbers.

    Returns:
        A float, or a float64 array of the shape of `q`.

    Raises:
        ValueError: An entry of `q` is not positive.

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> round(gaussian.length_map("relu", 3.0), 12)
    1.5
    """
    q = np.asarray(q, dtype=np.float64)
    if not np.all(q > 0):
        raise ValueError(f"`q` must be positive. Received: q={q}")
    pointwise = as_function(function)

    def mapped(scale: float) -> float:
        return moments(lambda x: pointwise(scale * x)).second_moment

    values = [mapped(scale) for scale in np.sqrt(q.flat)]
    return values[0] if q.ndim == 0 else np.reshape(values, q.shape)


def kernel_map(function: str | Pointwise, rho: npt.ArrayLike) -> float | Array:
    """`E[f(u) f(v)]` for standard normal `u`, `v` of correlation `rho`.

    The kernel map takes the correlation of two inputs through a wide random layer.

    Args:
        function: The name of a Keras activation, or a pointwise callable.
        rho: A float or an array of numbers in [-1, 1].

    Returns:
        A float, or a float64 array of the shape of `rho`.

    Raises:
        ValueError: An entry of `rho` is outside [-1, 1].

    Source: Up to a correlation of 0.9, Mehler's formula (J. reine angew. Math. 66
    (1866) 161); above it, a double integral.

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> round(gaussian.kernel_map("linear", 0.25), 12)
    0.25
    """
    rho = np.asarray(rho, dtype=np.float64)
    if not np.all(np.abs(rho) <= 1):
        raise ValueError(f"`rho` must be in [-1, 1]. Received: rho={rho}")
    pointwise, on_nodes = as_function(function), resolved(function)
    values = np.asarray(polynomial.polyval(rho, hermite_squares(function)))
    for index in np.argwhere(np.abs(rho) > MEHLER_LIMIT):
        place = tuple(index)
        values[place] = correlated_mean(pointwise, on_nodes, rho[place])
    return float(values) if rho.ndim == 0 else values


@functools.lru_cache(maxsize=64)
def shaping_epsilon(function: str | Pointwise, depth: int, eta: float) -> float:
    """The `epsilon` with which `depth` layers of `x + epsilon f(x)` map 0 to `eta`.

    With `K` the kernel map of `f`, that of the GP-normalized `x + epsilon f(x)` is
    `kappa(rho) = rho + gamma g(rho)`, `g(rho) = (1 - rho) E[f'^2] - K(1) + K(rho)`, and
    `gamma = epsilon^2 / E[(1 + epsilon f')^2]`. One curve `g` therefore serves every
    `epsilon`, and `gamma` is a root of the number of layers that it takes.

    Args:
        function: The name of a Keras activation, or a pointwise callable: `f`.
        depth: The number of layers, an integer of at least 1.
        eta: The correlation of two orthogonal inputs after `depth` layers, a float in
            (0, 1).

    Returns:
        `epsilon` as a float. It is infinite if no `epsilon` reaches `eta`, because
        `depth` is so small that even `f` alone stays below it, or because `f` is
        affine.

    Raises:
        ValueError: An argument is out of range.

    Source: This package; for more than 1000 layers by Abel's equation, see `_shaping`.
    """
    depth, eta = check_shaping(depth, eta)
    m = moments(function)
    mean, second = m.derivative_mean, m.derivative_second_moment

    def excess(rho: Array) -> Array:
        return (1 - rho) * second - m.second_moment + kernel_map(function, rho)

    # With t = 1 / epsilon, 1 / gamma = t^2 + 2 t E[f'] + E[f'^2].
    least = second - min(mean, 0.0) ** 2
    largest = 1 / least if least > 0 else 0.0
    coefficients = _shaping.series(excess, eta, second)
    gamma = _shaping.strength(coefficients, largest, depth, eta)
    if gamma is None:
        return float("inf")
    return float(1 / (np.sqrt(mean**2 - second + 1 / gamma) - mean))


def check_shaping(depth: Any, eta: Any) -> tuple[int, float]:
    """Both arguments as plain numbers; `ValueError` if one is out of range."""
    return (
        _check.integer("depth", depth),
        _check.number("eta", eta, "in (0, 1)", lambda x: 0 < x < 1),
    )


def _name(function: str | Pointwise) -> str:
    if isinstance(function, str):
        return function
    name = getattr(function, "name", None) or getattr(function, "__name__", None)
    return name or repr(function)
