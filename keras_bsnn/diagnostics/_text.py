"""The worst layers of a signal report, as a table of plain text."""

from typing import TYPE_CHECKING

import numpy as np

from keras_bsnn.diagnostics import _columns, _verdict

if TYPE_CHECKING:
    from keras_bsnn.diagnostics._report import SignalReport

ROWS = 5
FIELDS = (
    *("kinds", "root_mean_square", "gradient", "cosine_similarity"),
    *("isometry_gap", "saturated"),
)


def worst_layers(report: "SignalReport") -> str:
    """Returns a table of the layers that are worst by the measures of the verdict."""
    worst_first = np.argsort(-_verdict.severity(report), kind="stable")
    shown = np.sort(worst_first[:ROWS])
    by_field = {column.field: column for column in _columns.COLUMNS}
    columns = [by_field[field] for field in FIELDS]
    rows = [["#", "Layer", *(column.title for column in columns)]]
    for index in shown:
        values = [getattr(report, column.field)[index] for column in columns]
        texts = [c.show(value) for c, value in zip(columns, values, strict=True)]
        rows.append([f"{index + 1:,}", report.layers[index], *texts])
    title = f"The worst {len(shown)} of {len(report.layers):,} layers:"
    return "\n".join([title, *_aligned(rows)])


def _aligned(rows):
    """Returns lines in which columns of text start and columns of numbers end alike."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, layer, kind, *values in rows:
        texts = f"{number:>{widths[0]}}  {layer:{widths[1]}}  {kind:{widths[2]}}"
        pairs = zip(values, widths[3:], strict=True)
        yield "  ".join([texts, *(f"{value:>{width}}" for value, width in pairs)])
