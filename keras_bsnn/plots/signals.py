"""Draws what passes through the layers of models."""

import numpy as np

from keras_bsnn._public import public
from keras_bsnn.plots.style import figure, legend_above

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


@public
def signals(
    reports,
    path,
    xlabel="layer",
    fields=("root_mean_square", "gradient"),
    size=None,
    **saving,
):
    """Draws what passes through models against depth, a curve for each model.

    Args:
        reports: dict from a label to a report of `diagnostics.signal_report`, or to an
            object with its arrays `fields`.
        path: of the image file to write.
        xlabel: what the curves are drawn against.
        fields: what to draw, each in a panel of its own: of `"root_mean_square"`,
            `"gradient"`, `"weight_gradient"`, `"isometry_gap"`, `"cosine_similarity"`,
            `"saturated"` and `"orthogonality_error"`.
        size: width and height in inches.
        saving: further arguments of `matplotlib.figure.Figure.savefig`.

    Raises:
        ValueError: a field is not one of these.

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


def check_fields(fields):
    for field in fields:
        if field not in TITLES:
            raise ValueError(f"`fields` must be of {[*TITLES]}. Received: {field!r}")


def _draw(panel, label, values, field):
    """Of the layers that have such a thing."""
    has_it = ~np.isnan(values)
    layers, values = 1 + np.flatnonzero(has_it), values[has_it]
    if field in LINEAR:
        panel.plot(layers, values, label=label)
        return
    is_zero = values == 0  # has underflowed, and has no place on a log axis: a gap
    (line,) = panel.plot(layers, np.where(is_zero, np.nan, values), label=label)
    if is_zero.any() and not is_zero.all():
        first = np.argmin(is_zero)
        _mark_end(panel, (layers[first], values[first]), line.get_color())


def say(panel, words):
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", fontsize=11)


def _limit(panel):
    """What is nearly constant looks so, also beside what leaves all bounds."""
    low, high = panel.get_ylim()
    if high < 100 * low:
        middle = np.sqrt(low * high)
        low, high = middle / 10, middle * 10
    panel.set_ylim(max(low, LOW), min(high, HIGH))


def _mark_end(panel, end, color):
    """Says where a curve that comes from the output has underflowed to 0."""
    panel.plot(*end, "x", color=color, markersize=9, markeredgewidth=2)
    panel.annotate(
        "0 in float32",
        end,
        xytext=(-10, 4),
        textcoords="offset points",
        ha="right",
        color=color,
        fontsize=11,
    )
