"""Data sets as `tf.data`: images, through tensorflow_datasets, and sequences."""

from keras_bsnn.datasets._images import IMAGE_SETS, load
from keras_bsnn.datasets._sequences import adding_problem, copy_memory, permuted_mnist

__all__ = [
    "IMAGE_SETS",
    "adding_problem",
    "copy_memory",
    "load",
    "permuted_mnist",
]
