"""Callbacks of `model.fit`."""

from keras_bsnn.callbacks._backup import BackupAndRestore
from keras_bsnn.callbacks._recalibrate import RecalibrateBatchNorm
from keras_bsnn.callbacks._retract import Retract, retract
from keras_bsnn.callbacks._signal_monitor import SignalMonitor

__all__ = [
    "BackupAndRestore",
    "RecalibrateBatchNorm",
    "Retract",
    "SignalMonitor",
    "retract",
]
