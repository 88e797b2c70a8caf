"""Solves for the strength with which a kernel map reaches a correlation at a depth.

The map is `rho + gamma g(rho)`: one curve `g` serves every strength `gamma`. The curve
is a Chebyshev series on [0, eta], as plain floats: in a loop over one number at a time
they are far faster than arrays.
"""

from collections.abc import Callable

from numpy.polynomial import chebyshev

from keras_bsnn._types import Array

DEGREE = 40
HALVINGS = 46  # of an interval: then it is as narrow as rounding


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
    if _iterate(coefficients, largest, depth, eta) < eta:
        return None
    return _bisect(
        lambda gamma: _iterate(coefficients, gamma, depth, eta) >= eta, largest
    )


def _iterate(coefficients: list[float], gamma: float, depth: int, eta: float) -> float:
    """What the correlation 0 becomes after `depth` layers; at most `eta`."""
    rho = 0.0
    for _ in range(depth):
        x = 2 * rho / eta - 1
        b1 = b2 = 0.0  # Clenshaw's sum
        for c in coefficients[:0:-1]:
            b1, b2 = c + 2 * x * b1 - b2, b1
        rho += gamma * (coefficients[0] + x * b1 - b2)
        if rho >= eta:
            return eta
    return rho


def _bisect(is_above: Callable[[float], bool], high: float) -> float:
    """The number in (0, high] where the monotone predicate turns true."""
    low = high
    while is_above(low):
        low, high = low / 2, low
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return high
