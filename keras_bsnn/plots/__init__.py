"""Figures, drawn with matplotlib in one style."""

from keras_bsnn.plots.activations import kernel_map, length_map
from keras_bsnn.plots.heat_map import heat_map
from keras_bsnn.plots.signals import signals
from keras_bsnn.plots.singular_values import singular_values
from keras_bsnn.plots.style import COLORS, figure, legend_above

__all__ = [
    "COLORS",
    "figure",
    "heat_map",
    "kernel_map",
    "legend_above",
    "length_map",
    "signals",
    "singular_values",
]
