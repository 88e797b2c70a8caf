"""Layers for very deep networks."""

from keras_bsnn.depth import DepthStack
from keras_bsnn.layers.batch_norm_dense import BatchNormDense
from keras_bsnn.layers.orthogonal_dense import OrthogonalDense
from keras_bsnn.layers.roaf import ROAF
from keras_bsnn.layers.roaf_cell import ROAFCell
from keras_bsnn.layers.roaf_dense import ROAFDense

__all__ = [
    "ROAF",
    "BatchNormDense",
    "DepthStack",
    "OrthogonalDense",
    "ROAFCell",
    "ROAFDense",
]
