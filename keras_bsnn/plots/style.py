"""The style of all figures."""

import contextlib

from keras_bsnn._public import public

# Okabe and Ito's palette: told apart by colour-blind readers.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000"),
)
# Legible where a figure is as wide as a phone.
STYLE = {
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
    "savefig.dpi": 80,
    "svg.hashsalt": "keras_bsnn",  # the same file each time
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}


@public
@contextlib.contextmanager
def figure(path, rows=1, columns=1, size=None, saving=None, **kwargs):
    """The panels of a figure in the style of this package, which is then written.

    Curves get colors that colour-blind readers tell apart, and then other lines.

    Args:
        path: of the image file to write when all is drawn, or an open file.
        rows, columns: numbers of panels.
        size: width and height in inches, by default of a picture that fills the width
            of a phone.
        saving: dict of further arguments of `matplotlib.figure.Figure.savefig`.
        kwargs: further arguments of `matplotlib.figure.Figure.subplots`.

    Returns:
        A context manager that gives the panels as `matplotlib.pyplot.subplots` does:
        one `Axes`, or an array of them.

    Raises:
        ImportError: matplotlib is not installed (the extra `plots`).

    Example:

    >>> import io, keras_bsnn
    >>> with keras_bsnn.plots.figure(io.BytesIO(), rows=2) as (above, below):
    ...     curve = above.plot([1, 2, 3], label="rising")
    ...     below.set_yscale("log")
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    cycle = cycler(linestyle=["-", "--", ":"]) * cycler(color=COLORS)
    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycle}):
        drawn = Figure(figsize=size or (7, 1 + 2.8 * rows), layout="constrained")
        yield drawn.subplots(rows, columns, **kwargs)
        drawn.savefig(path, **(saving or {}))


def count_in_integers(*panels):
    """Where what is below a panel is a number of layers or batches."""
    for panel in panels:
        panel.xaxis.get_major_locator().set_params(integer=True)


@public
def legend_above(panels, **kwargs):
    """One legend for all panels of a figure, outside of them.

    Args:
        panels: of `figure`, an array with the same curves in each.
        kwargs: further arguments of `matplotlib.figure.Figure.legend`.

    Example:

    >>> import io, keras_bsnn
    >>> with keras_bsnn.plots.figure(io.BytesIO(), rows=2) as panels:
    ...     curves = [panel.plot([1, 2, 3], label="rising") for panel in panels]
    ...     keras_bsnn.plots.legend_above(panels)
    """
    handles = panels[0].get_legend_handles_labels()
    panels[0].figure.legend(*handles, loc="outside upper left", **kwargs)
