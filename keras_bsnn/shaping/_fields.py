"""Second moments over the places of a signal, and what linear operations do to them.

Places are the positions of an image, or of a sequence; features have none. All arrays
are float64. A displacement leads from one place to another: of `n` places along an axis
there are `2 n - 1`, from `1 - n` to `n - 1`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_bsnn._types import Array


class Field(NamedTuple):
    """Products of a signal with itself, or with that of another input.

    Attributes:
        at: array of the shape of the places: the mean product at each.
        across: array with an axis of displacements for each of places: the mean product
            over all pairs of places that are so far apart.
    """

    at: Array
    across: Array

    @property
    def mean(self) -> float:
        """That of all places."""
        return float(self.at.mean())

    @property
    def places(self) -> tuple[int, ...]:
        return self.at.shape

    def map(self, function: Callable[[Array], Array]) -> "Field":
        return Field(function(self.at), function(self.across))

    def scaled(self, factor: float) -> "Field":
        return self.map(lambda x: factor * x)

    def over_all_pairs(self) -> float:
        """The mean product over all pairs of places."""
        count = pairs(self.places)
        return float((count * self.across).sum() / count.sum())


def constant(value: float, places: tuple[int, ...], between: float) -> Field:
    """A field that is the same at all places.

    Args:
        value: the product at one place.
        places: their numbers along each axis.
        between: the product at two places.
    """
    across = np.full([2 * n - 1 for n in places], float(between))
    across[center(places)] = value
    return Field(np.full(places, float(value)), across)


def autocorrelation(x: Array, batch: int = 0) -> Array:
    """The mean product of what is at two places, for each displacement.

    Args:
        x: array of the shape of the places.
        batch: how many axes it has before those. Defaults to 0.
    """
    places = x.shape[batch:]
    spectrum = spectra(x, batch)
    return correlated(spectrum, spectrum, places)


def spectra(x: Array, batch: int = 0) -> Array:
    """The Fourier transform, of as many frequencies as there are displacements."""
    places = x.shape[batch:]
    if not places:
        return x
    return np.fft.rfftn(x, [2 * n - 1 for n in places], range(batch, x.ndim))


def correlated(a: Array, b: Array, places: tuple[int, ...]) -> Array:
    """The mean product of two images at two places, for each displacement.

    Args:
        a: the `spectra` of what is at the place that it leads from.
        b: that of what is at the place that it leads to.
        places: the numbers of places.
    """
    if not places:
        return np.real(a.conj() * b)
    axes = range(a.ndim - len(places), a.ndim)
    found = np.fft.irfftn(a.conj() * b, [2 * n - 1 for n in places], axes)
    return np.fft.fftshift(found, axes) / pairs(places)


def squared(x: Array) -> Field:
    """The field of a constant at each place, such as a mean."""
    return Field(np.square(x), autocorrelation(x))


def displacements(n: int) -> Array:
    """Those of `n` places along an axis."""
    return np.arange(1 - n, n)


def pairs(places: tuple[int, ...]) -> Array:
    """How many pairs of places are so far apart, for each displacement."""
    return _outer([n - np.abs(displacements(n)) for n in places])


def center(places: tuple[int, ...]) -> tuple[int, ...]:
    """The index of the displacement from a place to itself."""
    return tuple(n - 1 for n in places)


def consistent(at: Array, across: Array) -> Field:
    """A field whose products at no displacement are, on the mean, those at a place."""
    middle = center(at.shape)
    if across[middle] * at.mean() > 0:
        return Field(at, across * (at.mean() / across[middle]))
    across = across.copy()
    across[middle] = at.mean()
    return Field(at, across)


def broadcast(field: Field, places: tuple[int, ...]) -> Field:
    """A field on more places, of which one of its own stands for all along an axis."""
    return Field(
        np.broadcast_to(field.at, places),
        np.broadcast_to(field.across, [2 * n - 1 for n in places]),
    )


def profile(field: Field) -> Array:
    """The root mean square at each place, of the products of one input with itself."""
    return np.sqrt(np.maximum(field.at, 0))


def correlations(field: Field, root: Array) -> Array:
    """The products at displacements, in units of what the places have.

    What two places have in common is taken to depend on their displacement alone.

    Args:
        field: the field.
        root: the `profile`.
    """
    return ratio(field.across, autocorrelation(root))


def _outer(vectors):
    """The product of vectors, one for each axis."""
    return math.prod(np.ix_(*vectors)) if vectors else np.ones(())


def ratio(product: Array, scale: Array) -> Array:
    """The quotient; zero where there is nothing to divide by."""
    return product / np.where(scale > 1e-12 * np.abs(scale).max(), scale, np.inf)
