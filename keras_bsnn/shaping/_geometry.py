"""What operations on places make of a field.

What two places have in common is taken to depend on their displacement alone, and to be
in proportion to the root mean square of each.
"""

import math
from collections.abc import Sequence

import numpy as np

from keras_bsnn._types import Array
from keras_bsnn.shaping._fields import (
    Field,
    autocorrelation,
    center,
    consistent,
    constant,
    correlated,
    correlations,
    displacements,
    spectra,
)
from keras_bsnn.shaping._window import Window

Sizes = Sequence[int]
MOST_PRODUCTS = 10**7  # of pairs of taps; of more, windows at an edge count as others


def convolved(field: Field, root: Array, energies: Array, window: Window) -> Field:
    """What independent random taps make of it.

    Args:
        field: the field.
        root: the `profile` of the signal.
        energies: array of the window's size: for each tap, the mean square of a kernel
            times the number of channels that enter.
        window: what the taps read.
    """
    at, pairs_of_taps = 0.0, 0.0
    for tap in window.taps():
        at = at + energies[tap] * window.read(field.at, tap)
        read = autocorrelation(window.read(root, tap))
        pairs_of_taps = pairs_of_taps + energies[tap] * read
    across = window.spread(correlations(field, root)) * pairs_of_taps
    return consistent(np.asarray(at), across)


def transposed(
    field: Field, root: Array, energies: Array, window: Window, places: Sizes
) -> Field:
    """What the transpose of independent random taps makes of it.

    Args:
        field: the field.
        root: the `profile` of the signal.
        energies: as for `convolved`.
        window: what the taps would read of the places afterwards.
        places: the numbers of places afterwards.
    """
    at, pairs_of_taps = np.zeros(places), 0.0
    for tap in window.taps():
        target = window.indices(tap)
        kept = [(i >= 0) & (i < n) for i, n in zip(target, places, strict=True)]
        source = np.ix_(*map(np.flatnonzero, kept))
        target = np.ix_(*(i[k] for i, k in zip(target, kept, strict=True)))
        at[target] += energies[tap] * field.at[source]
        written = np.zeros(places)
        written[target] = root[source]
        pairs_of_taps = pairs_of_taps + energies[tap] * autocorrelation(written)
    rho = np.zeros([2 * n - 1 for n in places])
    index, inner = [], []
    for n, before, s in zip(places, field.places, window.strides, strict=True):
        moves = displacements(before)
        is_there = np.abs(moves * s) < n
        index.append(moves[is_there] * s + n - 1)
        inner.append(np.flatnonzero(is_there))
    rho[np.ix_(*index)] = correlations(field, root)[np.ix_(*inner)]
    return consistent(at, rho * pairs_of_taps)


def averaged(field: Field, root: Array, window: Window) -> Field:
    """What the means over windows make of it; places beyond the edges do not count.

    Args:
        field: the field.
        root: the `profile` of the signal.
        window: what is averaged.
    """
    taps = [*window.taps()]
    read = np.stack([window.read(root, tap) for tap in taps], -1)
    there = [window.read(np.ones(root.shape), tap) for tap in taps]
    read /= np.sum(there, axis=0)[..., None]
    rho = correlations(field, root)
    places = np.array(taps)
    moves = np.moveaxis(places[:, None] - places + center(root.shape), -1, 0)
    within = rho[tuple(moves)]
    at = ((read @ within) * read).sum(-1)
    if len(taps) ** 2 * rho.size < MOST_PRODUCTS:
        return consistent(at, _of_pairs(rho, read, taps, window))
    for axis, size in enumerate(window.size):
        kernel = np.convolve(np.ones(size), np.ones(size)) / size**2
        rho = _smoothed(rho, kernel, axis)
    return consistent(at, window.spread(rho) * autocorrelation(read.sum(-1)))


def _of_pairs(rho, read, taps, window):
    """The products of two windows, from those of all pairs of taps."""
    found = spectra(np.moveaxis(read, -1, 0), batch=1)
    total = 0.0
    for a, tap in zip(found, taps, strict=True):
        for b, other in zip(found, taps, strict=True):
            beyond = [j - i for i, j in zip(tap, other, strict=True)]
            products = correlated(a, b, read.shape[:-1])
            total = total + products * window.spread(rho, beyond)
    return total


def _smoothed(x, kernel, axis):
    """A convolution along an axis, with what is at the edges beyond them."""
    width = [(len(kernel) // 2,) * 2 if i == axis else (0, 0) for i in range(x.ndim)]
    padded = np.pad(x, width, mode="edge")
    n = x.shape[axis]
    return sum(
        weight * np.take(padded, np.arange(i, i + n), axis)
        for i, weight in enumerate(kernel)
    )


def cropped(field: Field, root: Array, ends: Sequence[Sizes]) -> Field:
    """Some of the places: between a pair of ends along each axis."""
    kept = tuple(slice(*pair) for pair in ends)
    at = field.at[kept]
    across = _moved(correlations(field, root), at.shape)
    return consistent(at, across * autocorrelation(root[kept]))


def padded(field: Field, root: Array, before: Sizes, after: Sizes) -> Field:
    """Zeros before and after the places of each axis."""
    width = [*zip(before, after, strict=True)]
    at, root_after = np.pad(field.at, width), np.pad(root, width)
    across = _moved(correlations(field, root), at.shape)
    return consistent(at, across * autocorrelation(root_after))


def _moved(rho, places):
    """Correlations at the displacements of fewer places, or of more."""
    ones = (1,) * len(places)
    return Window(ones, ones, ones, ones, tuple(places)).spread(rho)


def repeated(field: Field, root: Array, sizes: Sizes) -> Field:
    """Each place as often as is said along each axis, beside itself."""
    at, rho, after = field.at, correlations(field, root), root
    for axis, (size, n) in enumerate(zip(sizes, field.places, strict=True)):
        at, after = np.repeat(at, size, axis), np.repeat(after, size, axis)
        moves = displacements(n * size) / size
        low = np.floor(moves).astype(int)
        share = (moves - low).reshape([-1 if i == axis else 1 for i in range(at.ndim)])
        ends = [
            np.take(rho, np.clip(low + i + n - 1, 0, 2 * n - 2), axis) for i in (0, 1)
        ]
        rho = (1 - share) * ends[0] + share * ends[1]
    return consistent(at, rho * autocorrelation(after))


def reshaped(field: Field, places: tuple[int, ...], apart: float) -> Field:
    """The same numbers on other places, which follow one another in the same order.

    Args:
        field: the field.
        places: the numbers of places. None, for places that become channels; more than
            there were, for channels that become places.
        apart: the product of two channels, which are places then.
    """
    is_same = math.prod(places) == math.prod(field.places)
    if not (is_same and places and field.places):
        return constant(field.mean, places, apart)
    index = np.indices(places).reshape(len(places), -1)
    old = np.indices(field.places).reshape(len(field.places), -1)
    total = np.zeros([2 * n - 1 for n in places])
    count = np.zeros_like(total)
    for a in range(old.shape[1]):  # all pairs with this place
        moves = index - index[:, [a]] + np.array(places)[:, None] - 1
        before = old - old[:, [a]] + np.array(field.places)[:, None] - 1
        np.add.at(total, tuple(moves), field.across[tuple(before)])
        np.add.at(count, tuple(moves), 1)
    return Field(field.at.reshape(places), total / count)
