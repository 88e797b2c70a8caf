"""What `gaussian` integrates: functions resolved once, and correlated means."""

import functools
from typing import Any

import keras
import numpy as np

from keras_bsnn._types import Array, Pointwise
from keras_bsnn.ops._quadrature import (
    RANGE,
    Resolved,
    evaluate,
    nodes_between,
    normal_density,
    resolve,
)

# Correlations up to which the kernel map is summed, and the terms that this takes: what
# is left out is below rounding, and the nodes of `resolved` still integrate the last.
MEHLER_LIMIT = 0.9
MEHLER_TERMS = 372


def as_function(function: Any) -> Pointwise:
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
def resolved(function: Any) -> Resolved:
    """The function on nodes that integrate it; see `Resolved`."""
    return resolve(as_function(function))


@functools.lru_cache(maxsize=64)
def hermite_squares(function: Any) -> Array:
    """Squares of the first coefficients in normalized Hermite polynomials.

    By Mehler's formula they are those of the powers of `rho` in the kernel map.
    """
    r = resolved(function)
    before, polynomial, found = np.zeros_like(r.x), np.ones_like(r.x), []
    for k in range(MEHLER_TERMS):
        found.append(np.sum(r.weights * r.values * polynomial) ** 2)
        following = (r.x * polynomial - np.sqrt(k) * before) / np.sqrt(k + 1)
        before, polynomial = polynomial, following
    return np.array(found)


def correlated_mean(function: Pointwise, resolved: Resolved, rho: float) -> float:
    """`E[f(u) f(v)]` for standard normal `u`, `v` of correlation `rho`.

    The double integral is taken in the rotated coordinates u = cp p + cq q,
    v = cp p - cq q. The kinks of the integrand are then lines, which the inner integral
    over `p` meets at known points; bisection resolves the outer one over `q`.
    """
    sign = 1.0 if rho >= 0 else -1.0
    cp, cq = np.sqrt((1 + abs(rho)) / 2), np.sqrt((1 - abs(rho)) / 2)

    def inner(q: Array) -> Array:
        shift = cq * q[..., None]
        # The edges of both factors: together they reach over all of [-12, 12].
        splits = [(resolved.edges - shift) / cp, (sign * resolved.edges + shift) / cp]
        edges = np.sort(np.clip(np.concatenate(splits, axis=-1), -RANGE, RANGE))
        p, weights = nodes_between(edges)
        shift = shift[..., None]
        u, v = cp * p + shift, sign * (cp * p - shift)
        product = evaluate(function, u) * evaluate(function, v)
        return np.sum(weights * normal_density(p) * product, axis=(-2, -1))

    outer = resolve(inner, resolved.rounding)
    return float(np.sum(outer.weights * outer.values))
