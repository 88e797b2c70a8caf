"""The style of all figures."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from keras_bsnn._requirements import extra
from keras_bsnn._types import File

# Okabe and Ito's palette, which color-blind readers can tell apart.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000"),
)
# Legible when a figure is as wide as a phone.
STYLE: dict[Any, Any] = {
    "axes.formatter.min_exponent": 4,  # 60 and 0.006 in place of powers of 10
    "axes.grid": True,
    "axes.labelsize": 12,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "grid.alpha": 0.3,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 160,  # for screens of two pixels a point
    "svg.hashsalt": "keras_bsnn",  # makes files reproducible
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}


@contextlib.contextmanager
def figure(
    path: File,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] | None = None,
    saving: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Iterator[Any]:
    """The panels of a figure in the style of this package; writes it at the end.

    Curves get colors that color-blind readers can tell apart, and different line styles
    once the colors are used up.

    Args:
        path: The path of the image file to write, or an open binary file.
        rows: The number of rows of panels, an integer. Defaults to 1.
        columns: The number of columns of panels, an integer. Defaults to 1.
        size: The width and height in inches, two floats. Defaults to `None`, which
            suits a picture that fills the width of a phone.
        saving: A dict of further arguments of `matplotlib.figure.Figure.savefig`.
            Defaults to `None`.
        kwargs: Further arguments of `matplotlib.figure.Figure.subplots`.

    Returns:
        A context manager that gives the panels as `matplotlib.pyplot.subplots` does:
        one `Axes`, or an array of them.

    Raises:
        ModuleNotFoundError: matplotlib is not installed. The extra `plots` installs it.

    Example:

    >>> import io, keras_bsnn
    >>> with keras_bsnn.plots.figure(io.BytesIO(), rows=2) as (above, below):
    ...     curve = above.plot([1, 2, 3], label="rising")
    ...     below.set_yscale("log")
    """
    with extra("plots"):
        import matplotlib
        from cycler import cycler
        from matplotlib.figure import Figure

    cycle = cycler(linestyle=["-", "--", ":"]) * cycler(color=COLORS)
    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycle}):
        drawn = Figure(figsize=size or (7, 1 + 2.8 * rows), layout="constrained")
        yield drawn.subplots(rows, columns, **kwargs)
        drawn.savefig(path, **(saving or {}))


def count_in_integers(*panels: Any) -> None:
    """Puts the ticks of horizontal axes at integers: layers, or batches."""
    for panel in panels:
        panel.xaxis.get_major_locator().set_params(integer=True)


def legend_above(panels: Sequence[Any], **kwargs: Any) -> None:
    """Draws one legend for all panels of a figure, above them.

    Args:
        panels: The panels of `figure`, a sequence or array. All have the same curves.
        kwargs: Further arguments of `matplotlib.figure.Figure.legend`.

    Example:

    >>> import io, keras_bsnn
    >>> with keras_bsnn.plots.figure(io.BytesIO(), rows=2) as panels:
    ...     curves = [panel.plot([1, 2, 3], label="rising") for panel in panels]
    ...     keras_bsnn.plots.legend_above(panels)
    """
    handles = panels[0].get_legend_handles_labels()
    panels[0].figure.legend(*handles, loc="outside upper left", **kwargs)


def legend_on_top(panel: Any, **kwargs: Any) -> None:
    """Draws the legend of a panel above it, where no curve is.

    Args:
        panel: A panel of `figure`.
        kwargs: Further arguments of `matplotlib.axes.Axes.legend`.

    Example:

    >>> import io, keras_bsnn
    >>> with keras_bsnn.plots.figure(io.BytesIO()) as panel:
    ...     curve = panel.plot([1, 2, 3], label="rising")
    ...     keras_bsnn.plots.legend_on_top(panel, title="Numbers")
    """
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0}
    panel.legend(**place, alignment="left", **kwargs)
