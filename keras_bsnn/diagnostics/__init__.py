"""Measures how signals and gradients pass through a model."""

from keras_bsnn.diagnostics._batch import check_batch
from keras_bsnn.diagnostics._jacobian import (
    JacobianCheck,
    check_jacobian,
    jacobian_bounds,
)
from keras_bsnn.diagnostics._meter import SignalMeter, signal_report
from keras_bsnn.diagnostics._report import SignalReport

__all__ = [
    "JacobianCheck",
    "SignalMeter",
    "SignalReport",
    "check_batch",
    "check_jacobian",
    "jacobian_bounds",
    "signal_report",
]
