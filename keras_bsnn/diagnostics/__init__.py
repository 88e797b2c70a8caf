"""Measures how signals and gradients pass through a model."""

from keras_bsnn.diagnostics.batch import check_batch
from keras_bsnn.diagnostics.jacobian import check_jacobian, jacobian_bounds
from keras_bsnn.diagnostics.report import SignalMeter, signal_report

__all__ = [
    "SignalMeter",
    "check_batch",
    "check_jacobian",
    "jacobian_bounds",
    "signal_report",
]
