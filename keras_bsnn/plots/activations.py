"""Draws what an activation does to lengths and angles, from layer to layer."""

import functools

import numpy as np

from keras_bsnn._public import public
from keras_bsnn.activations import GaussianPoincare
from keras_bsnn.ops import gaussian
from keras_bsnn.plots.style import COLORS, count_in_integers, figure

POINTS = 41  # of a map
FACTOR = 2.0  # by which a mean square is off at first
RANGE = (1e-3, 1e3)  # beyond which it is not followed


@public
def kernel_map(functions, path, depth=50, start=0.0):
    """Draws the kernel maps of activations, and their iterates from layer to layer.

    Args:
        functions: dict from a label to an activation of second moment 1, such as a
            `GaussianPoincare`. Others are divided by the root of theirs.
        path: of the image file to write.
        depth: number of layers.
        start: correlation of two inputs of the first, in [-1, 1].

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


@public
def length_map(function, path, depth=20):
    """Draws the length map of an activation's two normalized forms, and iterates.

    The two meet in the fixed point 1, where a slope below 1 brings lengths back.

    Args:
        function: name of a Keras activation, or a pointwise callable.
        path: of the image file to write.
        depth: number of layers.

    Source: `keras_bsnn.ops.gaussian.gp_constants`, which has the two roots.

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
            mapped = gaussian.length_map(phi, lengths)
            above.plot(lengths, mapped, color=color, label=label)
            for start in (FACTOR, 1 / FACTOR):
                mapped = functools.partial(gaussian.length_map, phi)
                below.plot(_iterates(mapped, start, depth, RANGE), color=color)
        for panel in (above, below):
            panel.set_yscale("log")
        above.set(title="length map", xlabel="mean square before a layer", xscale="log")
        below.set(title="mean square behind each layer", xlabel="layer")
        count_in_integers(below)
        above.legend()


def _correlation(function, rho):
    """Of two outputs; rounding takes it no further than 1."""
    scale = gaussian.moments(function).second_moment
    return np.clip(gaussian.kernel_map(function, rho) / scale, -1, 1)


def _iterates(function, start, count, limits):
    """As far as they are within limits."""
    values = [start]
    low, high = limits
    while len(values) <= count and low <= values[-1] <= high:
        values.append(float(function(values[-1])))
    return values
