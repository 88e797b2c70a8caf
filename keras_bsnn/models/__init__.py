"""Ready-made networks."""

from keras_bsnn.models._batchnorm import batchnorm_cnn, batchnorm_mlp
from keras_bsnn.models._bsnn import bsnn_mlp
from keras_bsnn.models._bsnn_cnn import bsnn_cnn
from keras_bsnn.models._roaf import roaf_cnn, roaf_mlp, roaf_rnn

__all__ = [
    "batchnorm_cnn",
    "batchnorm_mlp",
    "bsnn_cnn",
    "bsnn_mlp",
    "roaf_cnn",
    "roaf_mlp",
    "roaf_rnn",
]
