"""Sequence tasks that test how far a recurrent network remembers."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_bsnn._requirements import extra
from keras_bsnn._types import Array
from keras_bsnn.datasets._images import IMAGE_SETS, load
from keras_bsnn.datasets._pipeline import LARGEST
from keras_bsnn.datasets._stream import stream
from keras_bsnn.ops import _check

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def permuted_mnist(
    split: str = "train",
    batch_size: int = 100,
    permutation: npt.ArrayLike | None = 92916,
    name: str = "mnist",
    **kwargs: Any,
) -> "tf.data.Dataset":
    """Images as sequences of pixels in one fixed, random order.

    Args:
        split: `"train"`, `"test"`, or a slice such as `"train[:90%]"`. Defaults to
            `"train"`.
        batch_size: The number of images in a batch, an integer of at least 1. Defaults
            to 100.
        permutation: The seed of `numpy.random.RandomState(seed).permutation(pixels)`;
            or an array, the order itself; or `None` for the pixels row by row
            (sequential MNIST). Defaults to 92916, the seed that is most used.
        name: The name of an image set of `load` that has one channel. Defaults to
            `"mnist"`.
        kwargs: Further arguments of `load`.

    Returns:
        A `tf.data.Dataset` of `(pixels, labels)`: float32 of shape `(batch, pixels, 1)`
        with mean 0 and standard deviation 1 over all pixels, and int64 of shape
        `(batch,)`. MNIST has 784 pixels.

    Raises:
        ValueError: `permutation` is an array that is no order of the pixels, or another
            argument is invalid.

    Source: Le, Jaitly, Hinton, arXiv 1504.00941, section 4.3.

    Example:

    >>> import keras_bsnn
    >>> data = keras_bsnn.datasets.permuted_mnist("train", 32, name="digits")
    >>> pixels, labels = next(iter(data))
    >>> pixels.shape
    TensorShape([32, 64, 1])
    """
    with extra("datasets"):
        import tensorflow as tf

    images = load(name, split, batch_size, **kwargs)
    order = _order(permutation, int(np.prod(IMAGE_SETS[name].shape)))

    def as_sequence(images: "tf.Tensor", labels: "tf.Tensor") -> tuple:
        pixels = tf.reshape(images, (-1, len(order)))
        return tf.gather(pixels, order, axis=1)[..., None], labels

    return images.map(as_sequence, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _order(permutation: npt.ArrayLike | None, pixels: int) -> Array:
    if permutation is None:
        return np.arange(pixels)
    if np.ndim(permutation) == 0:
        seed = _check.seed("permutation", permutation)
        return np.random.RandomState(seed).permutation(pixels)
    order = np.asarray(permutation)
    if not np.array_equal(np.sort(order, axis=None), np.arange(pixels)):
        raise ValueError(
            "`permutation` must be a seed, None, or an array that holds each of 0, "
            f"..., {pixels - 1} once. Received: shape={order.shape}"
        )
    return order


def adding_problem(
    length: int = 1000, batch_size: int = 50, seed: int = 0
) -> "tf.data.Dataset | keras.utils.PyDataset":
    """Sequences of two channels, whose target is the sum of two marked values.

    The first channel is uniform on [0, 1). The second is 0 except for two ones, one in
    each half of the sequence. A network that always predicts the mean, 1, has a mean
    squared error of 1/6.

    Args:
        length: The number of steps, an integer of at least 2. Defaults to 1000.
        batch_size: The number of sequences in a batch, an integer of at least 1.
            Defaults to 50.
        seed: The seed of the stream of batches, an integer. The stream neither ends nor
            repeats. Defaults to 0.

    Returns:
        A `tf.data.Dataset`, or a `keras.utils.PyDataset` where TensorFlow is not
        installed, of `(sequences, targets)`: float32 of shapes `(batch, length, 2)` and
        `(batch, 1)`. Give `fit` its `steps_per_epoch`.

    Raises:
        ValueError: An argument is out of range.

    Source: Hochreiter, Schmidhuber, Neural Computation 9 (1997) 1735; Arjovsky, Shah,
    Bengio, arXiv 1511.06464, section 4.2.

    Example:

    >>> import keras_bsnn
    >>> x, y = next(iter(keras_bsnn.datasets.adding_problem(length=100)))
    >>> x.shape, y.shape
    (TensorShape([50, 100, 2]), TensorShape([50, 1]))
    """
    length, batch_size, seed = _stream_arguments(length, 2, batch_size, seed)
    half = length // 2

    def batch(random: np.random.Generator) -> tuple[Array, Array]:
        values = random.random((batch_size, length), np.float32)
        marks = np.zeros_like(values)
        for low, high in ((0, half), (half, length)):
            places = random.integers(low, high, (batch_size, 1))
            np.put_along_axis(marks, places, 1, axis=1)
        targets = np.sum(values * marks, axis=1, keepdims=True)
        return np.stack([values, marks], axis=-1), targets

    return stream(batch, seed)


def copy_memory(
    length: int = 1000, batch_size: int = 128, seed: int = 0
) -> "tf.data.Dataset | keras.utils.PyDataset":
    """Ten symbols, which are to be repeated after `length` steps.

    A sequence holds ten symbols of {1, ..., 8}, `length` zeros, a 9, and nine zeros.
    The target is zero up to the 9, and then consists of the ten symbols. A network that
    guesses among the eight symbols has a mean cross-entropy of
    `10 ln 8 / (length + 20)`.

    Args:
        length: The number of steps in between, an integer of at least 1. Defaults to
            1000.
        batch_size: The number of sequences in a batch, an integer of at least 1.
            Defaults to 128.
        seed: The seed of the stream of batches, an integer. The stream neither ends nor
            repeats. Defaults to 0.

    Returns:
        A `tf.data.Dataset`, or a `keras.utils.PyDataset` where TensorFlow is not
        installed, of `(sequences, targets)`: one-hot float32 of shape `(batch, length +
        20, 10)`, and int32 of shape `(batch, length + 20)`. Give `fit` its
        `steps_per_epoch`.

    Raises:
        ValueError: An argument is out of range.

    Source: Arjovsky, Shah, Bengio, arXiv 1511.06464, section 4.1.

    Example:

    >>> import keras_bsnn
    >>> x, y = next(iter(keras_bsnn.datasets.copy_memory(length=30)))
    >>> x.shape, y.shape
    (TensorShape([128, 50, 10]), TensorShape([128, 50]))
    """
    length, batch_size, seed = _stream_arguments(length, 1, batch_size, seed)
    after = np.zeros((batch_size, length + 10), np.int32)
    after[:, length] = 9

    def batch(random: np.random.Generator) -> tuple[Array, Array]:
        symbols = random.integers(1, 9, (batch_size, 10), np.int32)
        inputs = np.concatenate([symbols, after], axis=1)
        targets = np.concatenate([np.zeros_like(after), symbols], axis=1)
        return np.eye(10, dtype=np.float32)[inputs], targets

    return stream(batch, seed)


def _stream_arguments(
    length: Any, least: int, batch_size: Any, seed: Any
) -> tuple[int, int, int]:
    return (
        _check.integer("length", length, least, LARGEST),
        _check.integer("batch_size", batch_size, 1, LARGEST),
        _check.integer("seed", seed, 0, 2**31 - 1),
    )
