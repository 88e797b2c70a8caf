"""Optimizers that step along the orthogonal matrices, layer by layer."""

from keras_bsnn.optimizers._stiefel import Stiefel
from keras_bsnn.optimizers._stiefel_muon import StiefelMuon

__all__ = ["Stiefel", "StiefelMuon"]
