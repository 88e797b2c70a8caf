"""Sums, products and concatenations of signals."""

import numpy as np

from keras_bsnn.shaping import _fields
from keras_bsnn.shaping._fields import Field
from keras_bsnn.shaping._signal import Part, Signal


def added(signals: list[Signal], weights: list[float] | None = None) -> Signal:
    """The weighted sum of signals that are functions of one Gaussian, or independent.

    Args:
        signals: list of signals.
        weights: list of numbers. Defaults to `None`, for ones.
    """
    weights = weights or [1.0] * len(signals)
    functions = _of_one_law(signals)
    if functions:
        return _as_function(
            signals[0],
            lambda x: sum(w * f(x) for w, f in zip(weights, functions, strict=True)),
        )
    parts = [signal.total for signal in _on_equal_places(signals)]
    mean = sum(w * p.mean for w, p in zip(weights, parts, strict=True))

    def field(name):
        at, across = _fields.squared(mean)
        for w, p in zip(weights, parts, strict=True):
            own, square = getattr(p, name), _fields.squared(p.mean)
            at = at + w**2 * (own.at - square.at)
            across = across + w**2 * (own.across - square.across)
        return Field(at, across)

    channels = max(p.channels for p in parts)
    return Signal((Part(channels, mean, field("same"), field("other")),))


def multiplied(signals: list[Signal]) -> Signal:
    """The product of signals that are functions of one Gaussian, or independent."""
    functions = _of_one_law(signals)
    if functions:
        return _as_function(signals[0], lambda x: _product(f(x) for f in functions))
    parts = [signal.total for signal in _on_equal_places(signals)]

    def field(of):
        return Field(_product(f.at for f in of), _product(f.across for f in of))

    return Signal(
        (
            Part(
                max(p.channels for p in parts),
                _product(p.mean for p in parts),
                field([p.same for p in parts]),
                field([p.other for p in parts]),
            ),
        )
    )


def _product(values):
    found = 1.0
    for value in values:
        found = found * value
    return found


def _of_one_law(signals):
    """The functions of which they are of one Gaussian, if they are."""
    parts = [signal.parts for signal in signals]
    if any(len(p) != 1 or p[0].same is not parts[0][0].same for p in parts):
        return None
    return [p[0].function or _identity for p in parts]


def _identity(x):
    return x


def _as_function(signal, function):
    return Signal((signal.parts[0]._replace(function=function),))


def _on_equal_places(signals):
    """The signals on the places that all are on, of which some have one alone."""
    places = np.broadcast_shapes(*(signal.places for signal in signals))

    def on_all(signal):
        return signal.spatial(
            lambda f, root: _fields.broadcast(f, places),
            lambda x: np.broadcast_to(x, places),
        )

    return [s if s.places == places else on_all(s) for s in signals]


def concatenated(signals: list[Signal]) -> Signal:
    """The channels of all signals."""
    return Signal(tuple(part for signal in signals for part in signal.parts))
