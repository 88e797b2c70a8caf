"""Gaussian-Poincaré normalization: moments, constants, length map and kernel map.

Everything here is float64 numpy and is computed once, when a layer is made.
"""

import functools
import warnings
from typing import NamedTuple

import keras
import numpy as np
from numpy.polynomial import chebyshev

from keras_bsnn.ops import _check
from keras_bsnn.ops.quadrature import (
    RANGE,
    evaluate,
    nodes_between,
    normal_density,
    resolve,
)

ROOTS = ("stable", "plus", "minus")


class Moments(NamedTuple):
    """Moments of `f(z)` and `f'(z)` for `z ~ N(0, 1)`."""

    mean: float
    second_moment: float
    derivative_mean: float
    derivative_second_moment: float


def as_function(function):
    """The pointwise function that a name, a layer or a callable stands for."""
    if isinstance(function, str):
        return keras.activations.get(function)
    if isinstance(function, keras.layers.Layer):
        return function.call  # calling the layer itself would cast to its dtype
    if not callable(function):
        raise ValueError(
            "`function` must be the name of a Keras activation or a callable. "
            f"Received: function={function!r}"
        )
    return function


@functools.lru_cache(maxsize=64)
def _resolved(function):
    return resolve(as_function(function))


def moments(function):
    """First and second moments of a function and its derivative under N(0, 1).

    Args:
        function: name of a Keras activation, or a pointwise callable of `keras.ops`
            or of numpy. It may have kinks.

    Returns:
        `Moments`, floats accurate to about 1e-12 relative to the second moments (1e-6
        for a function that computes in float32, as some `keras.ops` do on JAX).

    Raises:
        ValueError: `function` is not pointwise, continuous, piecewise smooth and of
            finite second moment.

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> round(gaussian.moments("relu").second_moment, 6)
    0.5
    """
    r = _resolved(function)
    return Moments(
        *(
            float(np.sum(r.weights * integrand))
            for integrand in (r.values, r.values**2, r.derivative, r.derivative**2)
        )
    )


def gp_constants(function, root="stable"):
    """The Gaussian-Poincaré constants `(a, b)` of a function `f`.

    `phi = a f + b` satisfies `E[phi(z)^2] = E[phi'(z)^2] = 1` for `z ~ N(0, 1)`, with
    `a = 1 / sqrt(E[f'^2])` and `b = -a E[f] +- sqrt(1 - a^2 Var f)`.

    Args:
        function: name of a Keras activation, or a pointwise callable.
        root: `"plus"` or `"minus"`, the sign in `b`, or `"stable"`, the root with the
            smaller slope of the length map; it warns where that slope is not below 1.

    Returns:
        The floats `(a, b)`.

    Raises:
        ValueError: `root` is unknown, or `function` has no GP form (it is constant,
            discontinuous, or its moments diverge).

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169, the definition of GPN functions; the
    choice of root by the length map is this package's.

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
            f"length map is {slopes[smaller]:.4f}, not below 1, so that deviations of "
            "the signal's length grow with depth.",
            stacklevel=2,
        )
    return candidates[smaller]


def check_root(root):
    if root not in ROOTS:
        raise _check.refusal("root", f"one of {ROOTS}", root)


def _constants(function, sign):
    m = moments(function)
    if m.derivative_second_moment <= 1e-24 * m.second_moment:
        raise ValueError(
            "`function` must not be constant: that has no Gaussian-Poincaré form. "
            f"Received: function={_name(function)}"
        )
    a = m.derivative_second_moment**-0.5
    variance = m.second_moment - m.mean**2
    # The Gaussian-Poincaré inequality; an affine function meets it with equality.
    spread = np.sqrt(max(0.0, 1.0 - a**2 * variance))
    return a, float(-a * m.mean + (spread if sign == "plus" else -spread))


def _slope(function, a, b):
    r = _resolved(function)
    phi = a * r.values + b
    return float(np.sum(r.weights * r.x * phi * a * r.derivative))


def length_slope(function):
    """Slope of the length map at its fixed point 1, for a GP-normalized function.

    The length map `V(q) = E[phi(sqrt(q) z)^2]` takes the mean squared activation from
    one layer to the next; `V'(1) = E[z phi(z) phi'(z)]`. Below 1, deviations of the
    length die out with depth; above 1, they grow.

    Args:
        function: a pointwise callable, name or layer, for instance a
            `GaussianPoincare`. It is taken as it is, not normalized.

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


def length_map(function, q):
    """`E[f(sqrt(q) z)^2]` for a standard normal `z`.

    The length map takes the mean squared activation from one layer to the next.

    Args:
        function: name of a Keras activation, or a pointwise callable.
        q: a float or an array of positive numbers.

    Returns:
        A float, or an array of the shape of `q`.

    Raises:
        ValueError: an entry of `q` is not positive.

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> round(gaussian.length_map("relu", 3.0), 12)
    1.5
    """
    q = np.asarray(q, dtype=np.float64)
    if not np.all(q > 0):
        raise ValueError(f"`q` must be positive. Received: q={q}")
    pointwise = as_function(function)

    def mapped(scale):
        return moments(lambda x: pointwise(scale * x)).second_moment

    values = [mapped(scale) for scale in np.sqrt(q.flat)]
    return values[0] if q.ndim == 0 else np.reshape(values, q.shape)


def kernel_map(function, rho):
    """`E[f(u) f(v)]` for standard normal `u`, `v` of correlation `rho`.

    The kernel map takes the correlation of two inputs through a wide random layer.

    Args:
        function: name of a Keras activation, or a pointwise callable.
        rho: a float or an array in [-1, 1].

    Returns:
        A float, or an array of the shape of `rho`.

    Raises:
        ValueError: an entry of `rho` is outside [-1, 1].

    Example:

    >>> from keras_bsnn.ops import gaussian
    >>> round(gaussian.kernel_map("linear", 0.25), 12)
    0.25
    """
    rho = np.asarray(rho, dtype=np.float64)
    if not np.all(np.abs(rho) <= 1):
        raise ValueError(f"`rho` must be in [-1, 1]. Received: rho={rho}")
    pointwise, resolved = as_function(function), _resolved(function)
    values = [_correlated_mean(pointwise, resolved, r) for r in rho.flat]
    return values[0] if rho.ndim == 0 else np.reshape(values, rho.shape)


def _correlated_mean(function, resolved, rho):
    """The double integral, in the rotated coordinates u = cp p + cq q, v = cp p - cq q.

    The kinks of the integrand are then lines, which the inner integral over `p` meets
    at known points; what is left for the outer one over `q` is resolved by bisection.
    """
    sign = 1.0 if rho >= 0 else -1.0
    cp, cq = np.sqrt((1 + abs(rho)) / 2), np.sqrt((1 - abs(rho)) / 2)
    base = np.arange(-RANGE, RANGE + 1)

    def inner(q):
        shift = cq * q[..., None]
        splits = [
            np.broadcast_to(base, (*q.shape, base.size)),
            (resolved.edges - shift) / cp,
            (sign * resolved.edges + shift) / cp,
        ]
        splits = np.sort(np.clip(np.concatenate(splits, axis=-1), -RANGE, RANGE))
        p, weights = nodes_between(splits)
        shift = shift[..., None]
        u, v = cp * p + shift, sign * (cp * p - shift)
        product = evaluate(function, u) * evaluate(function, v)
        return np.sum(weights * normal_density(p) * product, axis=(-2, -1))

    outer = resolve(inner, resolved.rounding)
    return float(np.sum(outer.weights * outer.values))


@functools.lru_cache(maxsize=64)
def shaping_epsilon(function, depth, eta):
    """The `epsilon` with which `depth` layers of `x + epsilon f(x)` map 0 to `eta`.

    With `K` the kernel map of `f`, that of the GP-normalized `x + epsilon f(x)` is
    `kappa(rho) = rho + gamma g(rho)`, `g(rho) = (1 - rho) E[f'^2] - K(1) + K(rho)`, and
    `gamma = epsilon^2 / E[(1 + epsilon f')^2]`. So one curve `g` serves every
    `epsilon`, and `gamma` is found by bisection.

    Args:
        function: name of a Keras activation, or a pointwise callable: `f`.
        depth: number of layers, an integer of at least 1.
        eta: the correlation after `depth` layers of two orthogonal inputs, in (0, 1).

    Returns:
        `epsilon` as a float; infinite if none reaches `eta`, because `depth` is so
        small that also `f` alone stays below it, or because `f` is affine.

    Raises:
        ValueError: an argument is out of range.
    """
    check_shaping(depth, eta)
    m = moments(function)
    mean, second = m.derivative_mean, m.derivative_second_moment
    coefficients = _excess_coefficients(function, second, m.second_moment, eta)
    # With t = 1 / epsilon, 1 / gamma = t^2 + 2 t E[f'] + E[f'^2].
    largest = 1 / (second - min(mean, 0.0) ** 2) if second > 0 else 0.0
    if _iterate(coefficients, largest, depth, eta) < eta:
        return float("inf")
    gamma = _bisect(
        lambda gamma: _iterate(coefficients, gamma, depth, eta) >= eta, largest
    )
    return float(1 / (np.sqrt(mean**2 - second + 1 / gamma) - mean))


def check_shaping(depth, eta):
    _check.integer("depth", depth)
    _check.number("eta", eta, "in (0, 1)", lambda x: 0 < x < 1)


def _excess_coefficients(function, slope, second_moment, eta):
    """Chebyshev coefficients of `g` on [0, eta], as plain floats."""

    def excess(x):
        rho = 0.5 * eta * (1 + x)
        return (1 - rho) * slope - second_moment + kernel_map(function, rho)

    coefficients = chebyshev.chebinterpolate(excess, 40)
    return chebyshev.chebtrim(coefficients, 1e-16 * slope).tolist()


def _iterate(coefficients, gamma, depth, eta):
    """What the correlation 0 becomes after `depth` layers; at most `eta`."""
    rho = 0.0
    for _ in range(depth):
        x = 2 * rho / eta - 1
        b1 = b2 = 0.0  # Clenshaw's sum, in floats: far faster here than an array
        for c in coefficients[:0:-1]:
            b1, b2 = c + 2 * x * b1 - b2, b1
        rho += gamma * (coefficients[0] + x * b1 - b2)
        if rho >= eta:
            return eta
    return rho


def _bisect(is_above, high):
    """The number in (0, high] where the monotone predicate turns true."""
    low = high
    while is_above(low):
        low, high = low / 2, low
    for _ in range(46):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return high


def _name(function):
    if isinstance(function, str):
        return function
    return getattr(function, "name", None) or getattr(
        function, "__name__", repr(function)
    )
