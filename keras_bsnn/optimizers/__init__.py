"""Optimizers that step along the orthogonal matrices, layer by layer."""

import keras

from keras_bsnn.optimizers._stiefel import Stiefel
from keras_bsnn.optimizers._stiefel_muon import StiefelMuon

__all__ = ["Stiefel", "StiefelMuon"]

# For `model.compile("stiefel_muon")`.
keras.saving.get_custom_objects()["stiefel_muon"] = StiefelMuon
