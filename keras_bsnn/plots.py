"""Figures, drawn with matplotlib in one style."""

import numpy as np

from keras_bsnn._public import public

# Okabe and Ito's palette: told apart by colour-blind readers.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000"),
)


@public
def signals(norms, path, xlabel="layer"):
    """Draws forward and gradient norms against depth, a curve for each model.

    Args:
        norms: dict from a label to a report of `diagnostics.signal_report`, or to an
            object with its arrays `root_mean_square` and `gradient`.
        path: of the image file to write.
        xlabel: what the curves are drawn against.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    titles = ("signal: root mean square", "gradient of the loss: norm")
    for panel, title, field in zip(
        panels, titles, ("root_mean_square", "gradient"), strict=True
    ):
        for color, (label, curve) in zip(COLORS, norms.items(), strict=False):
            values = getattr(curve, field)
            # A norm that has underflowed to 0 cannot be drawn on a log axis: a gap.
            values = np.where(values > 0, values, np.nan)
            panel.plot(values, color=color, label=label, linewidth=2)
            _mark_end(panel, values, color)
        panel.set_yscale("log")
        _show_two_decades(panel)
        panel.set_title(title, loc="left", fontsize=13)
        panel.tick_params(labelsize=11)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].set_xlabel(xlabel, fontsize=12)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", fontsize=12, frameon=False)
    figure.savefig(path, dpi=120)


def _show_two_decades(panel):
    """At least: what is nearly constant should look so."""
    low, high = panel.get_ylim()
    if high < 100 * low:
        middle = np.sqrt(low * high)
        panel.set_ylim(middle / 10, middle * 10)


def _mark_end(panel, values, color):
    """Says where a curve that comes from the output has underflowed to 0."""
    drawn = np.flatnonzero(np.isfinite(values))
    if drawn.size and drawn[0] > 0:
        end = (drawn[0], values[drawn[0]])
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
