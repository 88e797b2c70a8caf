"""Pure functions, without Keras state."""

from keras_bsnn.ops import gaussian, orthogonal

__all__ = ["gaussian", "orthogonal"]
