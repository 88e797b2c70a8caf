"""What layers compute, as a few kinds of steps, and the rules that join them.

A network is a list of steps. All numbers are float64, so that joining them rounds once.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DTYPE = "float32"  # of the layers that they become


class Affine(NamedTuple):
    """`activation(x @ kernel + bias)`."""

    kernel: np.ndarray
    bias: np.ndarray
    activation: Callable | None = None


class Scaled(NamedTuple):
    """`scale * x + shift`, numbers or an array of one for each feature."""

    scale: np.ndarray
    shift: np.ndarray


class Pointwise(NamedTuple):
    """A function of each entry.

    Attributes:
        function: of a tensor.
        is_activation: whether a layer can be saved with it as its activation.
    """

    function: Callable
    is_activation: bool = True


class Sum(NamedTuple):
    """What lists of steps make of the same input, added up."""

    branches: tuple


class Kept(NamedTuple):
    """A layer of Keras as it is.

    Attributes:
        make: of no arguments; the layer, not built.
        weights: of it.
    """

    make: Callable
    weights: list


def simplified(steps):
    """Fewer steps that compute the same."""
    found = []
    for step in steps:
        if isinstance(step, Sum):
            step = Sum(tuple(simplified(branch) for branch in step.branches))
        while found and (joined := _joined(found[-1], step)) is not None:
            found.pop()
            step = joined
        found.append(step)
    return found


def _joined(first, second):
    """One step in the place of two, or `None`."""
    rule = RULES.get((type(first), type(second)))
    return rule and rule(first, second)


def _scaled_scaled(first, second):
    scale, shift = second
    return Scaled(first.scale * scale, first.shift * scale + shift)


def _scaled_affine(first, second):
    kernel, bias, activation = second
    scale, shift = (np.broadcast_to(z, len(kernel)) for z in first)
    return Affine(scale[:, None] * kernel, shift @ kernel + bias, activation)


def _affine_scaled(first, second):
    scale, shift = second
    if first.activation:
        return None
    return Affine(first.kernel * scale, first.bias * scale + shift)


def _affine_affine(first, second):
    """Unless that is more work, as behind a bottleneck."""
    size = len(first.kernel) * len(second.bias)
    if first.activation or size > first.kernel.size + second.kernel.size:
        return None
    bias = first.bias @ second.kernel + second.bias
    return Affine(first.kernel @ second.kernel, bias, second.activation)


def _affine_pointwise(first, second):
    if first.activation or not second.is_activation:
        return None
    return first._replace(activation=second.function)


RULES = {
    (Scaled, Scaled): _scaled_scaled,
    (Scaled, Affine): _scaled_affine,
    (Affine, Scaled): _affine_scaled,
    (Affine, Affine): _affine_affine,
    (Affine, Pointwise): _affine_pointwise,
}
