"""Draws what an activation does to lengths and angles, from layer to layer."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_bsnn._types import Array, File, Pointwise
from keras_bsnn.activations import GaussianPoincare
from keras_bsnn.ops import gaussian
from keras_bsnn.plots._style import COLORS, count_in_integers, figure

POINTS = 41  # on a map
FACTOR = 2.0  # of the initial mean square, up or down from 1
RANGE = (1e-3, 1e3)  # beyond which a mean square is not followed


def kernel_map(
    functions: Mapping[str, str | Pointwise],
    path: File,
    depth: int = 50,
    start: float = 0.0,
) -> None:
    """Draws the kernel maps of activations, and their iterates from layer to layer.

    Args:
        functions: A dict from a label to an activation of second moment 1, such as a
            `GaussianPoincare`. Other activations are divided by the root of their
            second moment.
        path: The path of the image file to write, or an open binary file.
        depth: The number of layers, an integer. Defaults to 50.
        start: The correlation of two inputs of the first layer, a float in [-1, 1].
            Defaults to 0.

    Source: `keras_bsnn.ops.gaussian.kernel_map`.

    Example:

    >>> import io, keras_bsnn
    >>> tanh = keras_bsnn.activations.GaussianPoincare("tanh")
    >>> keras_bsnn.plots.kernel_map({"tanh": tanh}, io.BytesIO(), depth=5)
    """
    correlations = np.linspace(-1, 1, POINTS)
    with figure(path, 2, size=(7, 8)) as (above, below):
        above.axline((0, 0), slope=1, color="gray", linewidth=1)
        for label, function in functions.items():
            mapped = functools.partial(_correlation, function)
            above.plot(correlations, mapped(correlations), label=label)
            below.plot(_iterates(mapped, start, depth, (-1, 1)), label=label)
        above.set(title="kernel map", xlabel="correlation of two inputs of a layer")
        below.set(title="correlation of two samples", xlabel="layer", ylim=(None, 1.05))
        count_in_integers(below)
        above.legend()


def length_map(function: str | Pointwise, path: File, depth: int = 20) -> None:
    """Draws the length maps of an activation's two normalized forms, and iterates.

    The two maps meet in the fixed point 1, to which lengths return if the slope is
    below 1.

    Args:
        function: The name of a Keras activation, or a pointwise callable.
        path: The path of the image file to write, or an open binary file.
        depth: The number of layers, an integer. Defaults to 20.

    Source: `keras_bsnn.ops.gaussian.gp_constants`, which computes the two forms.

    Example:

    >>> import io, keras_bsnn
    >>> keras_bsnn.plots.length_map("relu", io.BytesIO())
    """
    lengths = np.geomspace(0.1, 10, POINTS)
    with figure(path, 2, size=(7, 8)) as (above, below):
        above.axline((1, 1), (2, 2), color="gray", linewidth=1)
        for color, root in zip(COLORS, ("plus", "minus"), strict=False):
            phi = GaussianPoincare(function, root)
            label = f"root {root}: slope {phi.length_slope:.2f}"
            mapped = functools.partial(gaussian.length_map, phi)
            above.plot(lengths, mapped(lengths), color=color, label=label)
            for start in (FACTOR, 1 / FACTOR):
                below.plot(_iterates(mapped, start, depth, RANGE), color=color)
        for panel in (above, below):
            panel.set_yscale("log")
        above.set(title="length map", xlabel="mean square before a layer", xscale="log")
        below.set(title="mean square after each layer", xlabel="layer")
        count_in_integers(below)
        above.legend()


def _correlation(function: str | Pointwise, rho: npt.ArrayLike) -> Array:
    """Correlation of two outputs, clipped to [-1, 1] against rounding."""
    scale = gaussian.moments(function).second_moment
    return np.clip(gaussian.kernel_map(function, rho) / scale, -1, 1)


def _iterates(
    function: Callable[[float], Any],
    start: float,
    count: int,
    limits: tuple[float, float],
) -> list[float]:
    """Up to `count` iterates of the function, as long as they are within limits."""
    values = [start]
    low, high = limits
    while len(values) <= count and low <= values[-1] <= high:
        values.append(float(function(values[-1])))
    return values
