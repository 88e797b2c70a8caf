"""Callbacks of `model.fit`."""

from keras_bsnn.callbacks._backup import BackupAndRestore
from keras_bsnn.callbacks.recalibrate import RecalibrateBatchNorm
from keras_bsnn.callbacks.retract import Retract, retract
from keras_bsnn.callbacks.signal_monitor import SignalMonitor

__all__ = [
    "BackupAndRestore",
    "RecalibrateBatchNorm",
    "Retract",
    "SignalMonitor",
    "retract",
]
