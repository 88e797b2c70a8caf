"""Callbacks of `model.fit`."""

from keras_bsnn.callbacks._backup import BackupAndRestore
from keras_bsnn.callbacks._recalibrate import RecalibrateBatchNorm
from keras_bsnn.callbacks._signal_monitor import SignalMonitor
from keras_bsnn.callbacks.retract import Retract, retract

__all__ = [
    "BackupAndRestore",
    "RecalibrateBatchNorm",
    "Retract",
    "SignalMonitor",
    "retract",
]
