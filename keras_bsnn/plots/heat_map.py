"""Draws what happens to each layer while a model is trained."""

import numpy as np

from keras_bsnn._public import public
from keras_bsnn.plots.signals import LINEAR, TITLES, check_fields, say
from keras_bsnn.plots.style import count_in_integers, figure


@public
def heat_map(reports, path, fields=("root_mean_square", "gradient"), xlabel="batches"):
    """Draws each layer at each time of training.

    Args:
        reports: dict from a time to a report, as
            `keras_bsnn.callbacks.SignalMonitor.reports`.
        path: of the image file to write.
        fields: as of `signals`.
        xlabel: what the times are.

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


def _draw(panel, reports, field):
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
