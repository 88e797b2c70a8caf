"""Layers for very deep networks."""

from keras_bsnn.depth._stack import DepthStack
from keras_bsnn.layers._batch_norm_conv import BatchNormConv2D
from keras_bsnn.layers._batch_norm_dense import BatchNormDense
from keras_bsnn.layers._orthogonal_conv import OrthogonalConv1D, OrthogonalConv2D
from keras_bsnn.layers._orthogonal_conv_transpose import OrthogonalConv2DTranspose
from keras_bsnn.layers._orthogonal_dense import OrthogonalDense
from keras_bsnn.layers._orthogonal_einsum_dense import OrthogonalEinsumDense
from keras_bsnn.layers._per_location_normalization import (
    PerLocationNormalization,
)
from keras_bsnn.layers._roaf import ROAF
from keras_bsnn.layers._roaf_cell import ROAFCell
from keras_bsnn.layers._roaf_conv import ROAFConv2D
from keras_bsnn.layers._roaf_dense import ROAFDense

__all__ = [
    "ROAF",
    "BatchNormConv2D",
    "BatchNormDense",
    "DepthStack",
    "OrthogonalConv1D",
    "OrthogonalConv2D",
    "OrthogonalConv2DTranspose",
    "OrthogonalDense",
    "OrthogonalEinsumDense",
    "PerLocationNormalization",
    "ROAFCell",
    "ROAFConv2D",
    "ROAFDense",
]
