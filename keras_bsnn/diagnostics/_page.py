"""Writes a signal report as one HTML page, which loads nothing from elsewhere."""

import base64
import datetime
import html
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_bsnn import _record, plots
from keras_bsnn.diagnostics import _verdict
from keras_bsnn.diagnostics._columns import COLUMNS, number, whole
from keras_bsnn.diagnostics._template import PAGE

if TYPE_CHECKING:
    from keras_bsnn.diagnostics._report import SignalReport

ROWS = 300  # of the table, at most: a deeper model shows some of its layers
ENDS = 10  # layers at either end that are always shown


def render(report: "SignalReport", title: str, facts: dict[str, str]) -> str:
    """Returns the page of a `SignalReport`.

    Args:
        report: The report.
        title: String, the title of the page.
        facts: Dict from a label to a text, on the measurement.
    """
    sentences = _verdict.sentences(report)
    is_good = report.gets_through
    shown = _shown(len(report.layers))
    return PAGE.substitute(
        title=html.escape(title),
        tone="good" if is_good else "bad",
        mark="✓ Good" if is_good else "✗ Trouble",
        verdict="\n".join(f"<p>{_prose(sentence)}</p>" for sentence in sentences),
        picture=_picture(report),
        alt=html.escape(_in_words(report)),
        facts=_terms({**facts, **_facts(report)}),
        caption=_caption(len(report.layers), len(shown)),
        head=_head(),
        rows="\n".join(_row(report, index) for index in shown),
        columns=_terms({column.title: column.meaning for column in COLUMNS}),
    )


def _prose(words):
    """Returns HTML in which exponents are raised and Python code is marked."""
    words = html.escape(words, quote=False)
    words = re.sub(r"10\^(\d+)", r"10<sup>\1</sup>", words)
    return re.sub(r"keras_bsnn(\.\w+)+(\([^)]*\))?", _code, words)


def _code(match):
    """Allows line breaks after a dot or a bracket."""
    words = re.sub(r"([.(])", r"\1<wbr>", match[0])
    return f"<code>{words}</code>"


def _terms(texts):
    return "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(text))}</dd>"
        for name, text in texts.items()
    )


def _picture(report):
    """Returns the figure as SVG, which is small and sharp at any size."""
    file = io.BytesIO()
    saving: dict[str, Any] = {"format": "svg", "metadata": {"Date": None}}
    plots.signals({"": report}, file, size=(5.5, 5), transparent=True, **saving)
    return base64.b64encode(file.getvalue()).decode()


def _in_words(report):
    """Describes the figure for those who cannot see it."""
    curves = {
        "The root mean square of the outputs": report.root_mean_square,
        "the norm of the gradient": report.gradient,
    }
    ends = (
        f"{name} is {number(norms[0])} at the first layer and {number(norms[-1])} "
        "at the last"
        for name, norms in curves.items()
    )
    return f"Two curves against the layer, on a log axis. {'; '.join(ends)}."


def _facts(report):
    versions = _record.environment()["versions"]
    return {
        "Loss": number(report.loss),
        "Layers": whole(len(report.layers)),
        "Trained weights": whole(report.parameters.sum()),
        "Software": ", ".join(f"{name} {versions[name]}" for name in versions),
        "Date": f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    }


def _shown(layers):
    """Returns the numbers of the layers that have a row."""
    if layers <= ROWS:
        return range(layers)
    between = np.linspace(ENDS, layers - 1 - ENDS, ROWS - 2 * ENDS).astype(int)
    return [*range(ENDS), *between, *range(layers - ENDS, layers)]


def _caption(layers, shown):
    if shown == layers:
        return f"All {layers:,} layers, from the input to the output."
    return (
        f"{shown:,} of {layers:,} layers: the first and the last {ENDS}, and evenly "
        "spaced ones in between. <code>report.to_csv</code> writes all of them."
    )


def _row(report, index):
    cells = (_cell(column, getattr(report, column.field)[index]) for column in COLUMNS)
    name = html.escape(report.layers[index])
    first = f'<td>{index + 1:,}</td><th scope="row">{name}</th>'
    return f"<tr>{first}{''.join(cells)}</tr>"


def _cell(column, value):
    return f"<td{_side(column)}>{html.escape(column.show(value))}</td>"


def _head():
    first = '<th scope="col">#</th><th scope="col" class="text">Layer</th>'
    others = (f'<th scope="col"{_side(c)}>{c.title}</th>' for c in COLUMNS)
    return first + "".join(others)


def _side(column):
    return ' class="text"' if column.show is str else ""
