"""The law of a signal of a wide random network, and what operations make of it."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_bsnn._types import Array, Pointwise
from keras_bsnn.ops._quadrature import evaluate
from keras_bsnn.shaping import _dual, _fields, _geometry
from keras_bsnn.shaping._fields import Field

DIGITS = 3  # of means and deviations, relative to the largest: others share integrals


class Part(NamedTuple):
    """Channels of one law: a Gaussian, or a function of one.

    Attributes:
        channels: their number.
        mean: array of the shape of the places.
        same: second moments of one input, a `Field`.
        other: products of two inputs, a `Field`.
        function: what is applied to the Gaussian that the others are of, or `None`.
    """

    channels: float
    mean: Array
    same: Field
    other: Field
    function: Pointwise | None = None

    def deviation(self) -> Array:
        """The standard deviation at each place."""
        return np.sqrt(np.maximum(self.same.at - self.mean**2, 0))

    def fields(self, change: Callable[[Field, Array], Field]) -> "Part":
        """With both fields changed.

        Args:
            change: function of a `Field`, and of the root mean square at each place.
        """
        root = _fields.profile(self.same)
        return self._replace(
            same=change(self.same, root), other=change(self.other, root)
        )


class Signal:
    """A tensor of a wide random network: its second moments, and those of two inputs.

    The channels of one place are equal in law; a concatenation has several laws. The
    channels that a random linear map returns are Gaussian, and a function of such is
    kept as that: what acts on each number alone is exact. All else knows a signal by
    its moments, and takes it for a Gaussian.

    Args:
        parts: tuple of `Part`, on the same places.

    Source: the channels of wide random layers as independent numbers of one law: Poole
    et al., arXiv 1606.05340; places: Xiao et al., arXiv 1806.05393.

    Example:

    >>> from keras_bsnn.shaping import Signal
    >>> part = Signal.white(correlation=0.5).pointwise(lambda x: x**2).total
    >>> round(float(part.same.at), 3), round(float(part.other.at), 3)
    (3.0, 1.5)
    """

    def __init__(self, parts: tuple[Part, ...]):
        self.parts = parts

    @classmethod
    def white(
        cls,
        places: tuple[int, ...] = (),
        channels: float = 1.0,
        correlation: float = 0.0,
        between: float = 0.0,
    ) -> "Signal":
        """Standard normal numbers.

        Args:
            places: tuple of the numbers of places.
            channels: their number.
            correlation: of two inputs at one place.
            between: of two places of one input.
        """
        same = _fields.constant(1.0, places, between)
        other = _fields.constant(correlation, places, correlation * between)
        return cls((Part(channels, np.zeros(places), same, other),))

    @property
    def places(self) -> tuple[int, ...]:
        return self.parts[0].same.places

    @property
    def channels(self) -> float:
        return sum(part.channels for part in self.parts)

    def pointwise(self, function: Pointwise) -> "Signal":
        """After a function that acts on each number."""
        return Signal(
            tuple(
                part._replace(function=_composed(function, part.function))
                for part in self.parts
            )
        )

    @functools.cached_property
    def settled(self) -> "Signal":
        """As Gaussians of the same moments."""
        return Signal(tuple(map(_settled, self.parts)))

    @functools.cached_property
    def total(self) -> Part:
        """All channels, as one Gaussian."""
        parts = self.settled.parts
        if len(parts) == 1:
            return parts[0]
        shares = [part.channels / self.channels for part in parts]

        def mean(arrays):
            return sum(s * x for s, x in zip(shares, arrays, strict=True))

        def field(of):
            return Field(mean([f.at for f in of]), mean([f.across for f in of]))

        return Part(
            self.channels,
            mean([p.mean for p in parts]),
            field([p.same for p in parts]),
            field([p.other for p in parts]),
        )

    def spatial(
        self, change: Callable[[Field, Array], Field], mean: Callable[[Array], Array]
    ) -> "Signal":
        """After an operation on the places.

        Args:
            change: function of a `Field`, and of the root mean square at each place.
            mean: function of an array of the places' shape, for the mean.
        """
        return self.settled.rearranged(change, mean)

    def rearranged(
        self, change: Callable[[Field, Array], Field], mean: Callable[[Array], Array]
    ) -> "Signal":
        """As `spatial`, for what only moves numbers: functions of Gaussians stay such.

        What adds zeros may do so where a function maps zero to zero.
        """

        def changed(part):
            return part.fields(change)._replace(mean=mean(part.mean))

        return Signal(tuple(map(changed, self.parts)))

    @property
    def keeps_zero(self) -> bool:
        """Whether all functions of Gaussians map zero to zero."""
        functions = [part.function for part in self.parts if part.function]
        return all(not evaluate(f, np.zeros(1)).any() for f in functions)

    def reshaped(self, places: tuple[int, ...], channels: float = 0.0) -> "Signal":
        """With as many numbers, in places and channels of others.

        Args:
            places: the numbers of places.
            channels: how many each has. Defaults to 0, for all there are.
        """
        if places == self.places:
            return self
        part = self.total
        total = part.channels * np.prod(part.same.places)
        level = part.mean.mean()

        def change(field, root):
            return _geometry.reshaped(field, places, level**2)

        part = part.fields(change)._replace(mean=np.full(places, level))
        return Signal((part._replace(channels=channels or total),))

    def mixed(
        self, change: Callable[[Field, Array], Field], channels: float
    ) -> "Signal":
        """After random linear maps of all channels.

        Args:
            change: function of a `Field`, and of the root mean square at each place:
                what the maps do to second moments.
            channels: how many they return.
        """
        part = self.total.fields(change)
        mean = np.zeros(part.same.places)
        return Signal((part._replace(channels=channels, mean=mean),))

    def shifted(self, values: Array) -> "Signal":
        """With a constant added to each channel, as of these values."""
        values = np.asarray(values, "float64")
        if not values.any():
            return self
        level, square = values.mean(), np.square(values).mean()

        def changed(part):
            far = 2 * level * part.mean.mean()

            def field(f, root):
                near = 2 * level * part.mean
                return Field(f.at + near + square, f.across + far + square)

            return part.fields(field)._replace(mean=part.mean + level)

        return Signal(tuple(map(changed, self.settled.parts)))

    def dropped(self, rate: float) -> "Signal":
        """With numbers set to zero at random, anew for each input and place.

        Args:
            rate: the share of those that are; others are larger for it.
        """

        def changed(part):
            across = np.array(part.same.across)
            across[_fields.center(part.same.places)] /= 1 - rate
            return part._replace(same=Field(part.same.at / (1 - rate), across))

        return Signal(tuple(map(changed, self.settled.parts)))

    def scaled(self, values: Array) -> "Signal":
        """With each channel multiplied by a constant, as of these values."""
        values = np.asarray(values, "float64")
        if np.all(values == values.flat[0]):
            factor = values.flat[0]
            return self if factor == 1 else self.pointwise(lambda x: factor * x)
        level, square = values.mean(), np.square(values).mean()
        return Signal(
            tuple(
                part.fields(lambda f, root: f.scaled(square))._replace(
                    mean=level * part.mean
                )
                for part in self.settled.parts
            )
        )


def _composed(function, inner):
    if inner is None:
        return function
    return lambda x: function(inner(x))


def _settled(part):
    if part.function is None:
        return part
    level, deviation = part.mean, part.deviation()
    square, variance = _fields.squared(level), _fields.squared(deviation)
    near = level, deviation
    # Two places have the mean and the variance that are between their own.
    far = np.sqrt(np.maximum(square.across, 0)), np.sqrt(np.maximum(variance.across, 0))
    kinds, which = _kinds(*(np.append(a, b) for a, b in zip(near, far, strict=True)))
    found = _dual.integrals(part.function, *kinds)
    here = which[: level.size].reshape(level.shape)
    there = which[level.size :].reshape(far[0].shape)

    def mapped(field):
        rho = [
            np.clip(_fields.ratio(product - s, v), -1.0, 1.0)
            for product, s, v in zip(field, square, variance, strict=True)
        ]
        return found.products(here, rho[0]), found.products(there, rho[1])

    _, across = mapped(part.same)
    same = _fields.consistent(found.second[here], across)
    other = _fields.consistent(*mapped(part.other))
    return Part(part.channels, found.mean[here], same, other)


def _kinds(means, deviations):
    """Pairs that differ in what matters, and which of them each place has."""
    unit = 10.0**-DIGITS * max(np.abs(means).max(), deviations.max(), 1e-300)
    pairs = np.stack([means, deviations])
    cells = np.round(pairs / unit)
    _, which, count = np.unique(cells, axis=1, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    return [np.bincount(which, x) / count for x in pairs], which
