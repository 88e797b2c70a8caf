"""Models on their way out: SavedModel, layers of Keras alone, affine layers as one."""

from keras_bsnn.export.certificate import verify
from keras_bsnn.export.folding import fold
from keras_bsnn.export.serving import saved_model
from keras_bsnn.export.to_keras import to_keras

__all__ = ["fold", "saved_model", "to_keras", "verify"]
