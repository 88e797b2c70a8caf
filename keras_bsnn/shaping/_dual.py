"""Gaussian integrals of a function at many means and variances at once.

They are good to 1e-4, where `ops.gaussian` computes one to rounding: what they are for
is the law of a wide network, which its width alone makes less exact.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.polynomial import polynomial

from keras_bsnn._types import Array, Pointwise
from keras_bsnn.ops._quadrature import evaluate, normal_density

REACH, STEP = 9.0, 2.0**-7  # of the nodes of the trapezoidal rule
TERMS = 129  # of Mehler's formula


class Integrals(NamedTuple):
    """Of `f(mean + deviation z)`, for `z ~ N(0, 1)`; one entry for each such pair.

    Attributes:
        mean: array of `E f`.
        second: array of `E f^2`.
        squares: array with a second axis: coefficients of the powers of a correlation
            in `E f f'`, of which the last stands for all beyond.
    """

    mean: Array
    second: Array
    squares: Array

    def products(self, indices: Array, rho: Array) -> Array:
        """`E f(u) f(v)` of two numbers of the law of an index, by their correlation."""
        squares = np.moveaxis(self.squares[indices], -1, 0)
        return np.asarray(polynomial.polyval(rho, squares, tensor=False))


@functools.cache
def _nodes():
    """Nodes, weights, and normalized Hermite polynomials at the nodes."""
    x = np.arange(-REACH, REACH + STEP / 2, STEP)
    weights = normal_density(x) * STEP
    found = [np.ones_like(x), x]
    for k in range(1, TERMS - 1):
        found.append((x * found[-1] - np.sqrt(k) * found[-2]) / np.sqrt(k + 1))
    return x, weights, np.array(found)


def integrals(function: Pointwise, mean: Array, deviation: Array) -> Integrals:
    """The integrals of a function.

    Args:
        function: a pointwise function of float64 arrays, as of `keras.ops`.
        mean: array of one axis.
        deviation: array like it.

    Raises:
        ValueError: the function is not pointwise, or not finite.
    """
    x, weights, hermite = _nodes()
    values = evaluate(function, mean[:, None] + deviation[:, None] * x)
    second = values**2 @ weights
    squares = (values @ (weights * hermite).T) ** 2
    squares[:, -1] += np.maximum(second - squares.sum(1), 0)
    return Integrals(values @ weights, second, squares)
