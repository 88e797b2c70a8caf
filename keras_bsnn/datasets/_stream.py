"""Endless data sets that are generated, also where TensorFlow is not installed."""

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_bsnn._types import Array

if TYPE_CHECKING:
    import tensorflow as tf

Batch = Callable[[np.random.Generator], tuple[Array, ...]]


def stream(batch: Batch, seed: int) -> "tf.data.Dataset | keras.utils.PyDataset":
    """An endless data set of `batch(random)`, with a generator that never repeats."""
    generated = Generated(batch, seed)
    return (
        _prefetched(generated) if importlib.util.find_spec("tensorflow") else generated
    )


class Generated(keras.utils.PyDataset):
    """Batch number `i` is made by a generator with the seed `[seed, i]`."""

    def __init__(self, batch: Batch, seed: int):
        super().__init__()
        self.batch, self.seed = batch, seed

    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, index: int) -> tuple[Array, ...]:
        return self.batch(np.random.default_rng([self.seed, int(index)]))


def _prefetched(generated: Generated) -> "tf.data.Dataset":
    """The same batches, which TensorFlow makes ahead of time."""
    import tensorflow as tf

    specs = [tf.TensorSpec(part.shape, part.dtype) for part in generated[0]]

    def numbered(index: "tf.Tensor") -> tuple:
        types = [spec.dtype for spec in specs]
        parts = tf.numpy_function(generated.__getitem__, [index], types)
        return tuple(map(tf.ensure_shape, parts, [spec.shape for spec in specs]))

    return (
        tf.data.Dataset.counter()
        .map(numbered, tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
