"""Layers for very deep networks."""

from keras_bsnn.layers.batch_norm_dense import BatchNormDense
from keras_bsnn.layers.depth_stack import DepthStack
from keras_bsnn.layers.orthogonal_dense import OrthogonalDense

__all__ = ["BatchNormDense", "DepthStack", "OrthogonalDense"]
