"""Images, through tensorflow_datasets, and the tasks for sequences, as `tf.data`."""

import functools
import logging
import tempfile
from typing import NamedTuple

import numpy as np

from keras_bsnn._public import public
from keras_bsnn.ops import _check

LARGEST = 2**31 - 21  # of numbers that TensorFlow counts with in 32 bits

logger = logging.getLogger(__name__)


class ImageSet(NamedTuple):
    """What is known of an image set without reading it; `mean` and `std` of x / 255."""

    shape: tuple
    classes: int
    mean: tuple
    std: tuple


IMAGE_SETS = {
    "digits": ImageSet((8, 8, 1), 10, (0.3053,), (0.3760,)),
    "mnist": ImageSet((28, 28, 1), 10, (0.1307,), (0.3081,)),
    "fashion_mnist": ImageSet((28, 28, 1), 10, (0.2860,), (0.3530,)),
    "cifar10": ImageSet(
        (32, 32, 3), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "cifar100": ImageSet(
        (32, 32, 3), 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    ),
}


@public
def load(
    name="digits",
    split="train",
    batch_size=64,
    shuffle=None,
    seed=None,
    data_dir=None,
    start=None,
):
    """Loads an image classification set as batches for `model.fit`.

    Images stay bytes until the last step (cached, shuffled and batched as uint8); there
    each channel is standardized with the mean and deviation of the training set.

    Args:
        name: `"digits"` (scikit-learn's, needs no download), `"mnist"`,
            `"fashion_mnist"`, `"cifar10"` or `"cifar100"`.
        split: `"train"`, `"test"`, or a slice as `"train[:90%]"`.
        batch_size: number of images in a batch.
        shuffle: whether to shuffle in each epoch and drop the partial last batch, so
            that all batches have one shape. By default, for splits of `"train"`.
            Without it every image comes, in a fixed order; all batches have one shape
            if `batch_size` divides the number of images.
        seed: of the shuffling; an integer or `None`.
        data_dir: folder of prepared data sets, by default the environment's
            `TFDS_DATA_DIR` or else the default of tensorflow_datasets.
        start: `None` for one epoch, or the number of batches to pass over in a stream
            of epochs that does not end. Which batch comes when then depends on `seed`
            alone, so that `keras_bsnn.callbacks.BackupAndRestore` can go on with what
            an unbroken run would see. Give `fit` its `steps_per_epoch`.

    Returns:
        `tf.data.Dataset` of `(images, labels)`: float32 `(batch, height, width,
        channels)` of mean 0 and deviation 1, and int64 `(batch,)`.

    Raises:
        ValueError: an argument is not of the kind above, or the data are damaged.
        FileNotFoundError: the data are not there and cannot be downloaded.

    Example:

    >>> import keras_bsnn
    >>> images, labels = next(iter(keras_bsnn.datasets.load("digits", "train", 32)))
    >>> images.shape
    TensorShape([32, 8, 8, 1])
    """
    if name not in [*IMAGE_SETS]:
        raise _check.refusal("name", f"one of {[*IMAGE_SETS]}", name)
    _check.integer("batch_size", batch_size, 1, LARGEST)
    _check.seed("seed", seed)
    builder = _readable_builder(name, data_dir)
    images = _check.interpreted(
        "split", f"one of {name!r}", functools.partial(_count, builder), split
    )
    if shuffle is None:
        shuffle = split.startswith("train")
    if shuffle and batch_size > images:
        raise ValueError(
            f"`batch_size` must be at most the {images} images of {name!r}, "
            f"split={split!r}. Received: batch_size={batch_size}"
        )
    if start is not None:
        _check_start(start, shuffle, seed)
    return _pipeline(builder, name, split, batch_size, shuffle, seed, images, start)


@public
def permuted_mnist(
    split="train", batch_size=100, permutation=92916, name="mnist", **kwargs
):
    """Images as sequences of pixels in one fixed, random order.

    Args:
        split, batch_size: as of `load`.
        permutation: seed of `numpy.random.RandomState(seed).permutation(pixels)`, the
            default being the one most used; an array, the order itself; or `None` for
            the pixels row by row (sequential MNIST).
        name: of an image set of `load`, of one channel.
        kwargs: further arguments of `load`.

    Returns:
        `tf.data.Dataset` of `(pixels, labels)`: float32 `(batch, 784, 1)` of mean 0 and
        deviation 1 over all pixels, and int64 `(batch,)`.

    Raises:
        ValueError: `permutation` is an array that is no order of the pixels, or an
            argument is not as `load` takes it.

    Source: Le, Jaitly, Hinton, arXiv 1504.00941, section 4.3.

    Example:

    >>> import keras_bsnn
    >>> data = keras_bsnn.datasets.permuted_mnist("train", 32, name="digits")
    >>> pixels, labels = next(iter(data))
    >>> pixels.shape
    TensorShape([32, 64, 1])
    """
    import tensorflow as tf

    images = load(name, split, batch_size, **kwargs)
    order = _order(permutation, int(np.prod(IMAGE_SETS[name].shape)))

    def as_sequence(images, labels):
        pixels = tf.reshape(images, (-1, len(order)))
        return tf.gather(pixels, order, axis=1)[..., None], labels

    return images.map(as_sequence, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _order(permutation, pixels):
    if permutation is None:
        return np.arange(pixels)
    if isinstance(permutation, int):
        return np.random.RandomState(permutation).permutation(pixels)
    order = np.asarray(permutation)
    if not np.array_equal(np.sort(order, axis=None), np.arange(pixels)):
        raise ValueError(
            "`permutation` must be a seed, None, or an array that holds each of 0, "
            f"..., {pixels - 1} once. Received: shape={order.shape}"
        )
    return order


@public
def adding_problem(length=1000, batch_size=50, seed=0):
    """Sequences of two channels; the target is the sum of two marked values.

    The first channel is uniform on [0, 1). The second is 0 but for two ones, one in
    each half. Who predicts the mean, 1, has a mean squared error of 1/6.

    Args:
        length: number of steps, an integer of at least 2.
        batch_size: number of sequences in a batch.
        seed: an integer: of the stream of batches, which does not end, nor repeat.

    Returns:
        `tf.data.Dataset` of `(sequences, targets)`: float32 `(batch, length, 2)` and
        `(batch, 1)`. Give `fit` its `steps_per_epoch`.

    Raises:
        ValueError: an argument is not of the kind above.

    Source: Hochreiter, Schmidhuber, Neural Computation 9 (1997) 1735; Arjovsky, Shah,
    Bengio, arXiv 1511.06464, section 4.2.

    Example:

    >>> import keras_bsnn
    >>> x, y = next(iter(keras_bsnn.datasets.adding_problem(length=100)))
    >>> x.shape, y.shape
    (TensorShape([50, 100, 2]), TensorShape([50, 1]))
    """
    import tensorflow as tf

    _check_stream(length, 2, batch_size, seed)
    half = length // 2

    def batch(seeds):
        values = tf.random.stateless_uniform((batch_size, length), seeds[0])
        places = (
            tf.random.stateless_uniform((batch_size,), s, low, high, dtype=tf.int32)
            for s, low, high in ((seeds[1], 0, half), (seeds[2], half, length))
        )
        marks = sum(tf.one_hot(place, length) for place in places)
        targets = tf.reduce_sum(values * marks, axis=1, keepdims=True)
        return tf.stack([values, marks], axis=-1), targets

    return _stream(batch, seed)


@public
def copy_memory(length=1000, batch_size=128, seed=0):
    """Ten symbols, to be repeated after `length` steps.

    A sequence holds ten symbols of {1, ..., 8}, `length` zeros, a 9, and nine zeros;
    the target is zero until the 9, and then these symbols. Who guesses among the eight
    has a mean cross-entropy of `10 ln 8 / (length + 20)`.

    Args:
        length: number of steps between, an integer of at least 1.
        batch_size, seed: as of `adding_problem`.

    Returns:
        `tf.data.Dataset` of `(sequences, targets)`: float32 `(batch, length + 20, 10)`,
        one of ten entries being one, and int32 `(batch, length + 20)`.

    Raises:
        ValueError: an argument is not of the kind above.

    Source: Arjovsky, Shah, Bengio, arXiv 1511.06464, section 4.1.

    Example:

    >>> import keras_bsnn
    >>> x, y = next(iter(keras_bsnn.datasets.copy_memory(length=30)))
    >>> x.shape, y.shape
    (TensorShape([128, 50, 10]), TensorShape([128, 50]))
    """
    import tensorflow as tf

    _check_stream(length, 1, batch_size, seed)
    marker = tf.one_hot([length], length + 10, on_value=9, dtype=tf.int32)

    def batch(seeds):
        shape = (batch_size, 10)
        symbols = tf.random.stateless_uniform(shape, seeds[0], 1, 9, dtype=tf.int32)
        after = tf.repeat(marker, batch_size, axis=0)
        inputs = tf.concat([symbols, after], axis=1)
        targets = tf.concat([tf.zeros_like(after), symbols], axis=1)
        return tf.one_hot(inputs, 10), targets

    return _stream(batch, seed)


def _stream(batch, seed):
    """An endless data set of `batch(seeds)`, from three seeds that do not repeat."""
    import tensorflow as tf

    def numbered(index):
        return batch(tf.random.split([seed, index], 3))

    return (
        tf.data.Dataset.counter(dtype=tf.int32)
        .map(numbered, tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _check_stream(length, least, batch_size, seed):
    _check.integer("length", length, least, LARGEST)
    _check.integer("batch_size", batch_size, 1, LARGEST)
    _check.integer("seed", seed, 0, 2**31 - 1)


def _check_start(start, shuffle, seed):
    _check.integer("start", start, 0)
    if shuffle and seed is None:
        raise _check.refusal("seed", "an integer where `start` is given", seed)


def _pipeline(builder, name, split, batch_size, shuffle, seed, images, start):
    import tensorflow as tf

    mean = tf.constant(IMAGE_SETS[name].mean)
    std = tf.constant(IMAGE_SETS[name].std)

    def standardize(image, label):
        return (tf.cast(image, tf.float32) / 255 - mean) / std, label

    dataset = builder.as_dataset(split=split, as_supervised=True).cache()
    size = {
        "batch_size": batch_size,
        "drop_remainder": shuffle or images % batch_size == 0,
    }
    if start is not None:
        dataset = _endless(dataset, images, size, seed if shuffle else None, start)
    elif shuffle:
        dataset = dataset.shuffle(images, seed=seed).batch(**size)
    else:
        dataset = dataset.batch(**size)
    return dataset.map(standardize, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _count(builder, split):
    return builder.info.splits[split].num_examples


def _readable_builder(name, data_dir):
    where = "its folder" if data_dir is None else data_dir
    try:
        builder = _prepared_builder(name, data_dir)
    except (OSError, ImportError):
        raise
    except Exception as error:  # what is damaged may raise anything
        raise ValueError(
            f"The data set {name!r} in {where} is damaged: {error}"
        ) from error
    if not builder.info.splits:
        raise ValueError(
            f"The data set {name!r} in {builder.data_dir} is damaged: "
            "dataset_info.json is missing, or tells of no data."
        )
    return builder


def _endless(dataset, images, size, seed, start):
    """Batches of one epoch after the other, without the first `start`.

    `Dataset.shuffle` would depend on the global seed, too, and on how often the data
    set was iterated before.
    """
    import tensorflow as tf

    everything = next(iter(dataset.batch(images)))

    def places(epoch):
        order = tf.range(images)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, [seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order).batch(**size)

    def batch(chosen):
        return tuple(tf.gather(part, chosen) for part in everything)

    first, rest = divmod(start, len(places(0)))
    epochs = tf.data.Dataset.counter(first)
    return epochs.flat_map(places).skip(rest).map(batch, tf.data.AUTOTUNE)


def _prepared_builder(name, data_dir):
    import tensorflow_datasets as tfds

    if name == "digits":
        return _prepared_digits(data_dir)
    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise FileNotFoundError(
                f"The data set {builder.info.full_name} was looked for in "
                f"{builder.data_dir}, and could not be downloaded: {error!r}. Set the "
                "environment variable TFDS_DATA_DIR (or `data_dir`) to a folder that "
                "holds it, or take 'digits', which needs no download."
            ) from error
    return builder


@functools.lru_cache(maxsize=8)
def _prepared_digits(data_dir):
    from keras_bsnn._digits import Digits

    builder = Digits(data_dir=data_dir)
    try:
        builder.download_and_prepare()
    except OSError as error:
        folder = tempfile.mkdtemp(prefix="digits-")
        logger.warning("digits: %s; they are written to %s.", error, folder)
        builder = Digits(data_dir=folder)
        builder.download_and_prepare()
    return builder
