"""A signal report as one HTML page, which loads nothing from elsewhere."""

import base64
import datetime
import html
import io
import re
import string
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_bsnn import _record, plots
from keras_bsnn.diagnostics import _verdict

ROWS = 300  # of the table; of a deeper model, some of its layers
ENDS = 10  # layers at either end that are always shown
NOTHING = "\N{EN DASH}"  # in the table

PAGE = string.Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #5a5a66; --paper: #fff;
  --line: #d9d9e0; --shade: #f4f4f7; --good: #0b6b3a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ee; --soft: #a6a6b3; --paper: #17171b; --line: #3a3a44;
    --shade: #212127; --good: #6fd79f; --bad: #ff9d94; }
  img { filter: invert(1) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1rem; font-weight: 600; color: var(--soft); }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
.good { --tone: var(--good); }
.bad { --tone: var(--bad); }
header { padding: 1rem 1.25rem; border: 1px solid var(--line); border-radius: .5rem;
  border-left: .5rem solid var(--tone); }
header p { margin: .5rem 0 0; max-width: 46rem; overflow-wrap: break-word; }
header .mark { margin: 0; color: var(--tone); font-size: 2.25rem; font-weight: 700;
  line-height: 1.3; }
code { font-size: .9em; }
sup { line-height: 0; }
img { display: block; width: 100%; max-width: 38rem; height: auto; margin: 2rem auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem;
  margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
.scroll { overflow: auto; max-height: 85vh; border: 1px solid var(--line);
  border-radius: .5rem; }
table { width: 100%; border-collapse: separate; border-spacing: 0; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { padding: .5rem .75rem; text-align: left; color: var(--soft); }
th, td { padding: .25rem .5rem; border-top: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
tr { background: var(--paper); }
thead tr, tr:nth-child(even) { background: var(--shade); }
thead th { position: sticky; top: 0; z-index: 1; background: inherit;
  white-space: normal; vertical-align: bottom; line-height: 1.25; }
tr > :first-child { position: sticky; left: 0; background: inherit;
  border-right: 1px solid var(--line); }
thead tr > :first-child { z-index: 2; }
tbody th { font-weight: 400; }
tbody th, .text { text-align: left; }
summary { margin: 1rem 0; cursor: pointer; }
@media print { .scroll { max-height: none; } }
</style>
</head>
<body>
<header class="$tone">
<h1>$title</h1>
<p class="mark">$mark</p>
$verdict
</header>
<main>
<img src="data:image/svg+xml;base64,$picture" alt="$alt">
<h2>What was measured</h2>
<dl>
$facts
</dl>
<h2 id="layers">Layer by layer</h2>
<div class="scroll" role="region" aria-labelledby="layers" tabindex="0">
<table>
<caption>$caption</caption>
<thead>
<tr>$head</tr>
</thead>
<tbody>
$rows
</tbody>
</table>
</div>
<details>
<summary>What the columns say</summary>
<dl>
$columns
</dl>
</details>
</main>
</body>
</html>
""")


def of(report, title, facts):
    """The page of a `SignalReport`, with further `facts` about what was measured."""
    is_good = report.gets_through
    shown = _shown(len(report.layers))
    return PAGE.substitute(
        title=html.escape(title),
        tone="good" if is_good else "bad",
        mark="✓ Good" if is_good else "✗ Trouble",
        verdict="\n".join(f"<p>{_prose(words)}</p>" for words in _verdict.of(report)),
        picture=_picture(report),
        alt=html.escape(_in_words(report)),
        facts=_terms({**facts, **_facts(report)}),
        caption=_caption(len(report.layers), len(shown)),
        head=_head(),
        rows="\n".join(_row(report, index) for index in shown),
        columns=_terms({column.title: column.meaning for column in COLUMNS}),
    )


def _prose(words):
    """With exponents raised, and Python set as such."""
    words = html.escape(words, quote=False)
    words = re.sub(r"10\^(\d+)", r"10<sup>\1</sup>", words)
    return re.sub(r"keras_bsnn(\.\w+)+(\([^)]*\))?", _code, words)


def _code(match):
    """May go on in the next line after a dot or a bracket."""
    words = re.sub(r"([.(])", r"\1<wbr>", match[0])
    return f"<code>{words}</code>"


def _terms(texts):
    return "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(text))}</dd>"
        for name, text in texts.items()
    )


def _picture(report):
    """As SVG: sharp at any size, and small."""
    file = io.BytesIO()
    saving = {"format": "svg", "transparent": True, "metadata": {"Date": None}}
    plots.signals({"": report}, file, size=(5.5, 5), **saving)
    return base64.b64encode(file.getvalue()).decode()


def _in_words(report):
    """What the figure shows, for who cannot see it."""
    curves = {
        "The root mean square of the outputs": report.root_mean_square,
        "the norm of the gradient": report.gradient,
    }
    ends = (
        f"{name} is {_number(norms[0])} at the first layer and {_number(norms[-1])} "
        "at the last"
        for name, norms in curves.items()
    )
    return f"Two curves against the layer, on a log axis. {'; '.join(ends)}."


def _facts(report):
    versions = _record.environment()["versions"]
    return {
        "Loss": _number(report.loss),
        "Layers": _whole(len(report.layers)),
        "Trained weights": _whole(report.parameters.sum()),
        "Software": ", ".join(f"{name} {versions[name]}" for name in versions),
        "Date": f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    }


def _shown(layers):
    """Numbers of the layers that have a row."""
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


def _number(value):
    """With three digits, so that columns are even."""
    return f"{value:#.3g}".removesuffix(".")


def _whole(value):
    return f"{value:,.0f}"


def _optional(value):
    """What not every layer has."""
    return NOTHING if np.isnan(value) else _number(value)


def _share(value):
    return NOTHING if np.isnan(value) else f"{value:.1%}"


class Column(NamedTuple):
    """Of the table.

    Attributes:
        title: above it.
        field: of a report.
        show: from a value to a text.
        meaning: for who does not know it.
    """

    title: str
    field: str
    show: Callable
    meaning: str


COLUMNS = (
    Column(
        "Root mean square",
        "root_mean_square",
        _number,
        "Of the entries of the output: the size of the signal.",
    ),
    Column(
        "Gradient",
        "gradient",
        _number,
        "Norm of the gradient of the loss with respect to the output.",
    ),
    Column(
        "Cosine similarity",
        "cosine_similarity",
        _optional,
        "Of the outputs of two samples, on average: 1 if samples look alike.",
    ),
    Column(
        "Isometry gap",
        "isometry_gap",
        _optional,
        "0 if samples are orthogonal and of one norm, large if they are in a few "
        "directions only.",
    ),
    Column(
        "Saturated", "saturated", _share, "Share of activations with a slope near 0."
    ),
    Column(
        "Weight gradient",
        "weight_gradient",
        _optional,
        "Norm of the gradient of the loss with respect to the weights.",
    ),
    Column(
        "Orthogonality error",
        "orthogonality_error",
        _optional,
        "How far the kernel is from an orthogonal matrix.",
    ),
    Column("Mean", "mean", _number, "Of the entries of the output."),
    Column("Weights", "parameters", _whole, "Number of weights that are trained."),
    Column("Kind", "kinds", str, "Class of the layer."),
)
