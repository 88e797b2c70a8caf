"""Pure functions, without Keras state."""

from keras_bsnn.ops import gaussian, isometry, orthogonal, roaf, spectral

__all__ = ["gaussian", "isometry", "orthogonal", "roaf", "spectral"]
