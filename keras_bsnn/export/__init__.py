"""Models on their way out, to SavedModel, LiteRT, ONNX, or layers of Keras alone."""

from keras_bsnn.export.certificate import verify
from keras_bsnn.export.folding import fold
from keras_bsnn.export.litert import litert
from keras_bsnn.export.onnx import onnx
from keras_bsnn.export.serving import saved_model
from keras_bsnn.export.to_keras import to_keras

__all__ = ["fold", "litert", "onnx", "saved_model", "to_keras", "verify"]
