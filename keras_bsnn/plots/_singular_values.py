"""Draws the spectrum of Jacobians."""

from collections.abc import Mapping

import numpy as np

from keras_bsnn._types import Array, File
from keras_bsnn.plots._style import figure

ROUNDING = 1e-8  # relative size below which float32 does not resolve a value


def singular_values(spectra: Mapping[str, Array], path: File) -> None:
    """Draws the singular values of Jacobians, from the largest to the smallest.

    A curve is the geometric mean over the samples, and a band shows their range.

    Args:
        spectra: A dict from a label to an array of shape `(batch, count)`, as
            `keras_bsnn.ops.isometry.jacobian_singular_values` returns it.
        path: The path of the image file to write, or an open binary file.

    Example:

    >>> import io, numpy as np, keras_bsnn
    >>> layer = keras_bsnn.layers.OrthogonalDense(8, "gp_tanh")
    >>> x = np.random.randn(4, 8).astype("float32")
    >>> values = keras_bsnn.ops.isometry.jacobian_singular_values(layer, x)
    >>> keras_bsnn.plots.singular_values({"a layer": values}, io.BytesIO())
    """
    with figure(path) as panel:
        for label, values in spectra.items():
            rank = np.linspace(0, 100, values.shape[-1])
            values = np.maximum(values, np.finfo("float64").tiny)
            mean = np.exp(np.mean(np.log(values), axis=0))
            (line,) = panel.plot(rank, mean, label=label)
            ends = values.min(axis=0), values.max(axis=0)
            panel.fill_between(rank, *ends, color=line.get_color(), alpha=0.2)
        panel.set(yscale="log", xlabel="rank in %, from the largest")
        panel.set_title("singular values of the Jacobian")
        largest = max(values.max() for values in spectra.values())
        panel.set_ylim(ROUNDING * largest, 3 * largest)
        panel.legend()
