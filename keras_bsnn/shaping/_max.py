"""What a maximum over windows makes of a signal: by Monte Carlo, once for each law.

The numbers of a window are drawn as the Gaussian that the signal is of, with its
function. Draws are the same at each call.
"""

import numpy as np

from keras_bsnn.shaping import _fields, _geometry
from keras_bsnn.shaping._fields import Field
from keras_bsnn.shaping._signal import Part, Signal
from keras_bsnn.shaping._window import Window

DRAWS = 2**18  # numbers, in as many windows as they fill
GRID = np.linspace(-1.0, 1.0, 13)  # correlations of two windows


def pooled(signal: Signal, window: Window) -> Signal:
    """After the maximum over windows; places beyond the edges do not count."""
    return Signal(tuple(_pooled(part, window) for part in signal.parts))


def _pooled(part, window):
    taps = [*window.taps()]
    rho = _within(part, np.array(taps))
    square, deviation = _fields.squared(part.mean), part.deviation()
    there, mean, spread = (
        np.stack([window.read(x, tap) for tap in taps], -1).reshape(-1, len(taps))
        for x in (np.ones(part.mean.shape), part.mean, deviation)
    )
    # Windows at an edge, and those with zeros that were added, have laws of their own.
    kinds = np.concatenate([there, spread > 1e-6 * spread.max()], 1)
    kinds, which = np.unique(kinds, axis=0, return_inverse=True)
    which = which.reshape(-1)
    laws = [
        _law(
            part.function,
            kind[: len(taps)] > 0,
            mean[which == i].mean(0),
            np.sqrt(np.square(spread[which == i]).mean(0)),
            rho,
        )
        for i, kind in enumerate(kinds)
    ]
    levels, products = (np.array(x)[which] for x in zip(*laws, strict=True))

    def smoothed(field):
        """The products of the means over two windows, without those of all inputs."""
        centered = Field(*(a - b for a, b in zip(field, square, strict=True)))
        return _geometry.averaged(centered, deviation, window)

    scale = _fields.squared(_fields.profile(smoothed(part.same)))

    def change(field):
        """As that of two windows that are as alike as their means."""
        at, across = map(_fields.ratio, smoothed(field), scale)
        pairs = zip(at.ravel(), products, strict=True)
        at = np.reshape([np.interp(rho, GRID, p) for rho, p in pairs], window.places)
        return _fields.consistent(at, np.interp(across, GRID, products.mean(0)))

    mean = levels.reshape(window.places)
    return Part(part.channels, mean, change(part.same), change(part.other))


def _within(part, taps):
    """The correlations of the numbers of a window."""
    moves = taps[:, None] - taps + np.array(_fields.center(part.same.places))
    index = tuple(np.moveaxis(moves, -1, 0))
    product = part.same.across[index] - _fields.autocorrelation(part.mean)[index]
    variance = _fields.autocorrelation(part.deviation())[index]
    rho = _fields.ratio(product, variance)
    np.fill_diagonal(rho, 1.0)
    return np.clip(rho, -1.0, 1.0)


def _law(function, there, mean, deviation, rho):
    """The mean of a maximum, and the products of two for each correlation of a grid.

    Args:
        function: that of the Gaussians, or `None`.
        there: array of booleans, which numbers of the window there are.
        mean: array, that of each number.
        deviation: array, that of each number.
        rho: matrix of their correlations.
    """
    values, vectors = np.linalg.eigh(rho[np.ix_(there, there)])
    root = vectors * np.sqrt(np.maximum(values, 0))
    size = len(root)
    a, b = np.random.default_rng(0).normal(size=(2, DRAWS // size, size)) @ root.T

    def most(z):
        x = mean[there] + deviation[there] * z
        return np.max(x if function is None else np.asarray(function(x)), axis=-1)

    first = most(a)
    pairs = [most(c * a + np.sqrt(1 - c**2) * b) for c in GRID]
    return first.mean(), np.array([np.mean(first * second) for second in pairs])
