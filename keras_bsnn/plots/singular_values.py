"""Draws the spectrum of Jacobians."""

import numpy as np

from keras_bsnn._public import public
from keras_bsnn.plots.style import figure


@public
def singular_values(spectra, path):
    """Draws the singular values of Jacobians, from the largest to the smallest.

    Args:
        spectra: dict from a label to an array `(batch, count)` of
            `keras_bsnn.ops.isometry.jacobian_singular_values`; drawn are the geometric
            mean over the samples, and the range of all.
        path: of the image file to write.

    Example:

    >>> import io, numpy as np, keras_bsnn
    >>> layer = keras_bsnn.layers.OrthogonalDense(8, "gp_tanh")
    >>> x = np.random.randn(4, 8).astype("float32")
    >>> values = keras_bsnn.ops.isometry.jacobian_singular_values(layer, x)
    >>> keras_bsnn.plots.singular_values({"a layer": values}, io.BytesIO())
    """
    with figure(path) as panel:
        for label, values in spectra.items():
            values = np.where(values > 0, values, np.nan)
            rank = np.linspace(0, 100, values.shape[-1])
            (line,) = panel.plot(
                rank, np.exp(np.nanmean(np.log(values), axis=0)), label=label
            )
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            panel.fill_between(
                rank, low, high, color=line.get_color(), alpha=0.2, linewidth=0
            )
        panel.set(
            yscale="log",
            title="singular values of the Jacobian",
            xlabel="% of them, from the largest",
        )
        panel.legend()
