"""Solves for the strength with which a kernel map reaches a correlation at a depth.

The map is `rho + gamma g(rho)`: one curve `g` serves every strength `gamma`. The curve
is a Chebyshev series on [0, eta]. Few layers are iterated, in plain floats, which are
far faster than arrays in a loop over one number at a time. Of many layers, the number
is known in powers of `gamma`.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.polynomial import chebyshev, legendre
from scipy import optimize

from keras_bsnn._types import Array

DEGREE = 40
MOST_ITERATED = 1000  # layers; beyond, the powers of gamma left out are below 1e-12
TERMS = 6
NODES = 64


def series(curve: Callable[[Array], Array], eta: float, scale: float) -> list[float]:
    """Chebyshev coefficients of `curve` on [0, eta], without those below rounding."""
    coefficients: Array = chebyshev.chebinterpolate(
        lambda x: curve(0.5 * eta * (1 + x)), DEGREE
    )
    return chebyshev.chebtrim(coefficients, 1e-16 * scale).tolist()


def strength(
    coefficients: list[float], largest: float, depth: int, eta: float
) -> float | None:
    """The `gamma` in (0, largest] that takes 0 to `eta` in `depth` steps, or `None`."""
    at_zero = _clenshaw(coefficients, -1.0)  # where the curve is largest
    if not (largest > 0 and at_zero > 0):
        return None
    layers = _iterated if depth <= MOST_ITERATED else _expanded
    excess = layers(coefficients, depth, eta)
    # In 1 / gamma, to which the number of layers is nearly proportional.
    ends = 1 / largest, max(1 / largest, 1.01 * depth * at_zero / eta)
    if excess(ends[0]) > 0:
        return None
    return 1 / optimize.brentq(excess, *ends, xtol=1e-300, rtol=1e-15)


def _iterated(
    coefficients: list[float], depth: int, eta: float
) -> Callable[[float], float]:
    """How many layers more than `depth` it takes from 0 to `eta`, by 1 / gamma.

    A last layer that goes beyond `eta` counts in part. The curve of an affine function
    is rounding: where it is not positive, no number of layers is enough.
    """

    def excess(inverse: float) -> float:
        rho = 0.0
        for i in range(depth):
            change = _clenshaw(coefficients, 2 * rho / eta - 1) / inverse
            if change <= 0:
                return math.inf
            if rho + change >= eta or i == depth - 1:
                break
            rho += change
        return i + (eta - rho) / change - depth

    return excess


def _clenshaw(coefficients: list[float], x: float) -> float:
    """The value of a Chebyshev series."""
    b1 = b2 = 0.0
    for c in coefficients[:0:-1]:
        b1, b2 = c + 2 * x * b1 - b2, b1
    return coefficients[0] + x * b1 - b2


def _expanded(
    coefficients: list[float], depth: int, eta: float
) -> Callable[[float], float]:
    """The same in powers of `gamma`.

    The number of layers `T(rho)` from 0 to `rho` obeys Abel's equation
    `T(rho + gamma g) = T(rho) + 1`. Its Taylor series, the sum of
    `(gamma g)^j T^(j) / j!` over j >= 1, is 1: it is solved by
    `T' = u_0 / gamma + u_1 + u_2 gamma + ...` with `u_0 = 1 / g`, and each `u_k`
    follows from the derivatives of those before it.
    """
    # Nodes that are dense near 1, where g vanishes: 1 - rho falls exponentially.
    nodes, weights = legendre.leggauss(NODES)
    rho = -np.expm1(0.5 * (1 + nodes) * math.log1p(-eta))
    weights = -0.5 * math.log1p(-eta) * weights * (1 - rho)
    g = np.stack(
        [
            chebyshev.chebval(
                2 * rho / eta - 1, chebyshev.chebder(coefficients, j, 2 / eta)
            )
            / math.factorial(j)
            for j in range(TERMS)
        ]
    )
    if np.any(g[0] <= 0):
        return lambda inverse: math.inf
    integrals = [float(weights @ u[0]) for u in _rates(g)]

    def excess(inverse: float) -> float:
        return sum(x * inverse ** (1 - k) for k, x in enumerate(integrals)) - depth

    return excess


def _rates(g: Array) -> list[Array]:
    """Taylor coefficients of each `u_k`, on the first axis, from those of `g`."""
    powers = [*itertools.accumulate([g] * TERMS, _product)]
    rates: list[Array] = []
    for k in range(TERMS):
        right = -sum(
            (
                _product(powers[j], _derivative(rates[k - j], j))
                / math.factorial(j + 1)
                for j in range(1, k + 1)
            ),
            np.zeros_like(g),
        )
        right[0] += k == 0
        rates.append(_quotient(right, g))
    return rates


def _product(a: Array, b: Array) -> Array:
    """Of two Taylor series."""
    return np.stack([(a[: m + 1] * b[m::-1]).sum(0) for m in range(len(a))])


def _quotient(a: Array, b: Array) -> Array:
    """Of two Taylor series."""
    q = np.zeros_like(a)
    for m in range(len(a)):
        q[m] = (a[m] - (b[1 : m + 1] * q[:m][::-1]).sum(0)) / b[0]
    return q


def _derivative(a: Array, order: int) -> Array:
    """Of a Taylor series; the last coefficients, which it does not have, are 0."""
    found = np.zeros_like(a)
    for m in range(len(a) - order):
        found[m] = a[m + order] * math.perm(m + order, order)
    return found
