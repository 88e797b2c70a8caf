"""Draws signals and gradients through the layers of models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bsnn._types import Array, File
from keras_bsnn.plots._style import figure, legend_above

TITLES = {
    "root_mean_square": "signal: root mean square",
    "gradient": "gradient of the loss: norm",
    "weight_gradient": "gradient with respect to the weights: norm",
    "isometry_gap": "isometry gap",
    "cosine_similarity": "cosine similarity of samples",
    "saturated": "share of saturated units",
    "orthogonality_error": "orthogonality error",
}
LOW, HIGH = 1e-12, 1e12  # beyond which a curve leaves the panel
LINEAR = ("cosine_similarity", "saturated")


def signals(
    reports: Mapping[str, Any],
    path: File,
    xlabel: str = "layer",
    fields: Sequence[str] = ("root_mean_square", "gradient"),
    size: tuple[float, float] | None = None,
    **saving: Any,
) -> None:
    """Draws signals and gradients against depth, with a curve for each model.

    On logarithmic axes, a cross marks where a curve goes on at 0 or at infinity.

    Args:
        reports: A dict from a label to a report of `diagnostics.signal_report`, or to
            an object that has the arrays `fields`.
        path: The path of the image file to write, or an open binary file.
        xlabel: The label of the horizontal axis. Defaults to `"layer"`.
        fields: The names of the fields to draw, each in its own panel:
            `"root_mean_square"`, `"gradient"`, `"weight_gradient"`, `"isometry_gap"`,
            `"cosine_similarity"`, `"saturated"` and `"orthogonality_error"`. Defaults
            to the first two.
        size: The width and height in inches, two floats. Defaults to `None`, which
            fits them to the number of panels.
        saving: Further arguments of `matplotlib.figure.Figure.savefig`.

    Raises:
        ValueError: A field is unknown.

    Example:

    >>> import io, keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile(loss="mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> report = keras_bsnn.diagnostics.signal_report(model, x, y)
    >>> keras_bsnn.plots.signals({"ours": report}, io.BytesIO(), fields=["gradient"])
    """
    check_fields(fields)
    rows = len(fields)
    size = size or (7, 2 + 2 * rows)
    shared = {"sharex": True, "squeeze": False}
    with figure(path, rows, size=size, saving=saving, **shared) as panels:
        panels = panels[:, 0]
        for panel, field in zip(panels, fields, strict=True):
            for label, report in reports.items():
                _draw(panel, label, getattr(report, field), field)
            if not any(np.isfinite(line.get_ydata()).any() for line in panel.lines):
                say(panel, "0 or not finite")
            elif field not in LINEAR:
                panel.set_yscale("log")
                _limit(panel)
            panel.set_title(TITLES[field])
        panels[-1].set_xlabel(xlabel)
        if any(reports):
            legend_above(panels, ncols=1 if len(reports) < 4 else 2)


def check_fields(fields: Sequence[str]) -> None:
    """Raises `ValueError` for a field that no report has."""
    for field in fields:
        if field not in TITLES:
            raise ValueError(f"`fields` must be of {[*TITLES]}. Received: {field!r}")


def _draw(panel: Any, label: str, values: Array, field: str) -> None:
    """Draws the curve of one model, over the layers that have this field."""
    has_it = ~np.isnan(values)
    layers, values = 1 + np.flatnonzero(has_it), values[has_it]
    if field in LINEAR or not values.size:
        panel.plot(layers, values, label=label)
        return
    is_gone = (values == 0) | np.isinf(values)  # a log axis has no place for them
    (line,) = panel.plot(layers, np.where(is_gone, np.nan, values), label=label)
    beside = np.pad(is_gone, 1, mode="edge")
    ends = np.flatnonzero(~is_gone & (beside[:-2] | beside[2:]))
    style = {"color": line.get_color(), "markersize": 9, "markeredgewidth": 2}
    crosses = layers[ends], np.clip(values[ends], 3 * LOW, HIGH / 3)  # within
    panel.plot(*crosses, "x", **style)
    if ends.size and values[0] == 0:
        _say_zero(panel, [x[0] for x in crosses], line.get_color())


def say(panel: Any, words: str) -> None:
    """Writes words in the middle of a panel that has no curve."""
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", fontsize=11)


def _limit(panel: Any) -> None:
    """Sets the limits of a logarithmic axis.

    They span at least two decades, so that a nearly constant curve looks flat, and they
    are clipped, so that one diverging curve does not flatten the others.
    """
    low, high = panel.get_ylim()
    if high < 100 * low:
        middle = np.sqrt(low * high)
        low, high = middle / 10, middle * 10
    panel.set_ylim(max(low, LOW), min(high, HIGH))


def _say_zero(panel: Any, end: Sequence[float], color: str) -> None:
    """Says that a curve, followed from the output, has underflowed here."""
    panel.annotate(
        "0 in float32",
        end,
        xytext=(-10, 4),
        textcoords="offset points",
        ha="right",
        color=color,
        fontsize=11,
    )
