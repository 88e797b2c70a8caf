"""Pure functions, without Keras state."""

from keras_bsnn.ops import gaussian, orthogonal, spectral

__all__ = ["gaussian", "orthogonal", "spectral"]
