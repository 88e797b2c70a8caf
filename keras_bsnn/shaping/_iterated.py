"""A map applied many times, in time that hardly grows with their number.

The number of times is taken for a time, and the map for the solution of a differential
equation after a unit of it, which is so to second order in what it changes. That is in
the logarithm of the size of the state, and in its shape: what grows by one factor has
one rate.
"""

from collections.abc import Callable

import numpy as np

from keras_bsnn._types import Array

ERROR = 0.01  # of a step, of the logarithm of the size and of the shape
STILL = 1e-8  # a rate at which nothing moves
FAR = 300.0  # a logarithm from which on nothing but the size changes


def iterated(function: Callable[[Array], Array], state: Array, times: int) -> Array:
    """The state after a map has been applied to it so many times.

    Args:
        function: map of an array of one axis.
        state: where it begins.
        times: an integer.
    """

    def step(y):
        return _in_logarithms(function(_plain(y)))

    y, stride = _in_logarithms(state), 1
    while times > 0 and np.isfinite(y).all():
        rate = _rate(step, y)
        if np.abs(rate).max() < STILL:
            break
        if abs(y[0]) > FAR:
            y[0] += times * rate[0]
            break
        y, stride = _moved(step, y, rate, min(2 * stride, times))
        times -= stride
    return _plain(y)


def _moved(step, y, rate, stride):
    """A step of the midpoint rule, the longest that is good enough; and its length."""
    while stride > 1:
        again = _rate(step, y + 0.5 * stride * rate)
        if stride * np.abs(again - rate).max() < ERROR:
            return y + stride * again, stride
        stride //= 2
    return step(y), 1


def _rate(step, y):
    """The logarithm of the map: `D - D^2 / 2`, of what it adds."""
    first = step(y)
    move = first - y
    return move - 0.5 * (step(first) - first - move)


def _in_logarithms(state):
    size = np.abs(state).max()
    with np.errstate(divide="ignore"):
        return np.concatenate([[np.log(size)], state / (size or 1.0)])


def _plain(y):
    with np.errstate(over="ignore"):
        return np.exp(y[0]) * y[1:]
