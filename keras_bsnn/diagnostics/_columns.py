"""The columns of the tables of a signal report."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NOTHING = "\N{EN DASH}"  # in place of a value that a layer does not have


def number(value: float) -> str:
    """Returns a number with three digits, so that columns are even."""
    return f"{value:#.3g}".removesuffix(".")


def whole(value: float) -> str:
    """Returns an integer with commas between the thousands."""
    return f"{value:,.0f}"


def _optional(value):
    return NOTHING if np.isnan(value) else number(value)


def _share(value):
    return NOTHING if np.isnan(value) else f"{value:.1%}"


class Column(NamedTuple):
    """A column of the tables.

    Attributes:
        title: its heading.
        field: name of the attribute of a `SignalReport`.
        show: function that formats a value.
        meaning: what it measures, in a sentence.
    """

    title: str
    field: str
    show: Callable
    meaning: str


COLUMNS = (
    Column(
        "Root mean square",
        "root_mean_square",
        number,
        "Root mean square of the entries of the output: the size of the signal.",
    ),
    Column(
        "Gradient",
        "gradient",
        number,
        "Norm of the gradient of the loss with respect to the output.",
    ),
    Column(
        "Cosine similarity",
        "cosine_similarity",
        _optional,
        "Mean cosine similarity of the outputs of two samples: near 1 if the rank "
        "has collapsed.",
    ),
    Column(
        "Isometry gap",
        "isometry_gap",
        _optional,
        "0 if the outputs of samples are orthogonal and of one norm, large if they "
        "span few directions.",
    ),
    Column(
        "Saturated", "saturated", _share, "Share of the units with a slope near zero."
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
        "Largest entry of |K^T K - 1| for the kernel K.",
    ),
    Column("Mean", "mean", number, "Mean of the entries of the output."),
    Column("Weights", "parameters", whole, "Number of trainable weights."),
    Column("Kind", "kinds", str, "Class of the layer."),
)
