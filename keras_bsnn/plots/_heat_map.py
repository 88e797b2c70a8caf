"""Draws what happens to each layer while a model is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bsnn._types import File
from keras_bsnn.plots._signals import LINEAR, TITLES, check_fields, say
from keras_bsnn.plots._style import count_in_integers, figure


def heat_map(
    reports: Mapping[int, Any],
    path: File,
    fields: Sequence[str] = ("root_mean_square", "gradient"),
    xlabel: str = "batches",
) -> None:
    """Draws each layer at each time of training, one panel for each field.

    Args:
        reports: A dict from a time to a report, such as
            `keras_bsnn.callbacks.SignalMonitor.reports`.
        path: The path of the image file to write, or an open binary file.
        fields: The names of the fields to draw: `"root_mean_square"`, `"gradient"`,
            `"weight_gradient"`, `"isometry_gap"`, `"cosine_similarity"`,
            `"saturated"` and `"orthogonality_error"`. Defaults to the first two.
        xlabel: The unit of the times. Defaults to `"batches"`.

    Raises:
        ValueError: `reports` is empty, or a field is unknown.

    Example:

    >>> import io, keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> monitor = keras_bsnn.callbacks.SignalMonitor(x, y)
    >>> history = model.fit(x, y, epochs=3, callbacks=[monitor], verbose=0)
    >>> keras_bsnn.plots.heat_map(monitor.reports, io.BytesIO())
    """
    check_fields(fields)
    if not reports:
        raise ValueError("`reports` must have at least one report. Received: {}")
    size = (7, 1 + 3 * len(fields))
    with figure(path, len(fields), size=size, squeeze=False) as panels:
        for panel, field in zip(panels[:, 0], fields, strict=True):
            _draw(panel, reports, field)
            panel.set(title=TITLES[field], ylabel="layer", xlabel=xlabel)


def _draw(panel: Any, reports: Mapping[int, Any], field: str) -> None:
    values = np.stack([getattr(report, field) for report in reports.values()], axis=-1)
    has_it = ~np.isnan(values).all(axis=-1)
    layers, values = 1 + np.flatnonzero(has_it), values[has_it]
    is_log = field not in LINEAR
    has_place = np.isfinite(values) & ((values > 0) | (not is_log))
    panel.grid(False)
    if not has_place.any():
        say(panel, "0 or not finite")
        return
    norm, values = "log" if is_log else "linear", np.where(has_place, values, np.nan)
    mesh = panel.pcolormesh([*reports], layers, values, norm=norm, shading="nearest")
    panel.figure.colorbar(mesh, ax=panel)
    count_in_integers(panel)
