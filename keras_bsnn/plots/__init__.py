"""Figures, drawn with matplotlib in one style."""

from keras_bsnn.plots._heat_map import heat_map
from keras_bsnn.plots._maps import kernel_map, length_map
from keras_bsnn.plots._signals import signals
from keras_bsnn.plots._singular_values import singular_values
from keras_bsnn.plots._style import COLORS, figure, legend_above, legend_on_top

__all__ = [
    "COLORS",
    "figure",
    "heat_map",
    "kernel_map",
    "legend_above",
    "legend_on_top",
    "length_map",
    "signals",
    "singular_values",
]
