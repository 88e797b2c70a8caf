"""Exports models to SavedModel, LiteRT, ONNX, or layers of Keras alone."""

from keras_bsnn.export._certificate import verify
from keras_bsnn.export._fold import fold
from keras_bsnn.export._litert import litert
from keras_bsnn.export._onnx import onnx
from keras_bsnn.export._saved_model import saved_model
from keras_bsnn.export._to_keras import to_keras

__all__ = ["fold", "litert", "onnx", "saved_model", "to_keras", "verify"]
