"""Image classification sets, read through tensorflow_datasets."""

import functools
import importlib.util
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_bsnn.datasets import _arrays, _augment, _builders, _pipeline
from keras_bsnn.datasets._pipeline import LARGEST
from keras_bsnn.ops import _check

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class ImageSet(NamedTuple):
    """Facts about an image set that are known without reading it.

    Attributes:
        shape: `(height, width, channels)` of an image.
        classes: The number of classes.
        mean: The mean of `x / 255` over the training set, for each channel.
        std: The standard deviation of `x / 255`, for each channel.
        flips: Whether an image is of the same class when left and right are swapped.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.datasets.IMAGE_SETS["mnist"].shape
    (28, 28, 1)
    """

    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: bool = False


IMAGE_SETS = {
    "digits": ImageSet((8, 8, 1), 10, (0.3053,), (0.3760,)),
    "mnist": ImageSet((28, 28, 1), 10, (0.1307,), (0.3081,)),
    "fashion_mnist": ImageSet((28, 28, 1), 10, (0.2860,), (0.3530,), True),
    "cifar10": ImageSet(
        (32, 32, 3), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), True
    ),
    "cifar100": ImageSet(
        (32, 32, 3), 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), True
    ),
}


def load(
    name: str = "digits",
    split: str = "train",
    batch_size: int = 64,
    shuffle: bool | None = None,
    seed: int | None = None,
    data_dir: str | None = None,
    start: int | None = None,
    augment: bool = False,
) -> "tf.data.Dataset | keras.utils.PyDataset":
    """Loads an image classification set as batches for `model.fit`.

    Images stay bytes (cached, shuffled and batched as uint8) until the last step, which
    standardizes each channel with the mean and standard deviation of the training set.

    Where TensorFlow is not installed, there are only the digits, in another order
    (`pip install 'keras_bsnn[digits]'`).

    Args:
        name: `"digits"` (scikit-learn's, which needs no download), `"mnist"`,
            `"fashion_mnist"`, `"cifar10"` or `"cifar100"`. Defaults to `"digits"`.
        split: `"train"`, `"test"`, or a slice such as `"train[:90%]"`. Defaults to
            `"train"`.
        batch_size: The number of images in a batch, an integer of at least 1. Defaults
            to 64.
        shuffle: A boolean. `True` shuffles in each epoch and drops the partial last
            batch, so that all batches have one shape. `False` gives every image in a
            fixed order; all batches then have one shape if `batch_size` divides the
            number of images. Defaults to `None`, which shuffles splits of `"train"`.
        seed: The seed of the shuffling, an integer. Defaults to `None`, which draws
            one.
        data_dir: The folder of prepared data sets. Defaults to `None`, which takes that
            of the environment variable `TFDS_DATA_DIR`, or else the default of
            tensorflow_datasets.
        start: The number of batches to skip in an endless stream of epochs, an integer.
            The order of the batches then depends on `seed` alone, so that a run
            resumed by `keras_bsnn.callbacks.BackupAndRestore` sees what an unbroken run
            would. Give `fit` its `steps_per_epoch`. Defaults to `None`, which gives one
            epoch.
        augment: A boolean. `True` shifts each image by up to an eighth of its height
            and width, 4 pixels of 32, anew in each epoch; black comes in at the edges.
            Half of the images are mirrored, too, in the sets whose
            `IMAGE_SETS[name].flips` is true: these are `"cifar10"`, `"cifar100"` and
            `"fashion_mnist"`, and no digits. Only where images are shuffled. What is
            drawn depends on `seed`, and with `start` on nothing else. Defaults to
            `False`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: float32 of shape `(batch, height,
        width, channels)` with mean 0 and standard deviation 1, and int64 of shape
        `(batch,)`. Without TensorFlow, a `keras.utils.PyDataset`, with int32 labels.

    Raises:
        ValueError: An argument is invalid, or the data are damaged.
        FileNotFoundError: The data are not there and cannot be downloaded.
        ModuleNotFoundError: A package of the extra `datasets` or `digits` is missing.

    Example:

    >>> import keras_bsnn
    >>> images, labels = next(iter(keras_bsnn.datasets.load("digits", "train", 32)))
    >>> images.shape
    TensorShape([32, 8, 8, 1])
    """
    if name not in [*IMAGE_SETS]:
        raise _check.refusal("name", f"one of {[*IMAGE_SETS]}", name, known=IMAGE_SETS)
    batch_size = _check.integer("batch_size", batch_size, 1, LARGEST)
    augment = _check.boolean("augment", augment)
    seed = _check.seed("seed", seed)
    is_of_arrays = name == "digits" and not importlib.util.find_spec("tensorflow")
    if is_of_arrays:
        count = _count
    else:
        builder = _builders.readable(name, data_dir)
        count = functools.partial(_builders.count, builder)
    images = _check.interpreted("split", f"one of {name!r}", count, split)
    if shuffle is None:
        shuffle = split.startswith("train")
    if shuffle and batch_size > images:
        raise ValueError(
            f"`batch_size` must be at most the {images} images of {name!r}, "
            f"split={split!r}. Received: batch_size={batch_size}"
        )
    if augment and not shuffle:
        raise _check.refusal("augment", "False where images are not shuffled", augment)
    if start is not None:
        start = _check.integer("start", start, 0)
        if shuffle and seed is None:
            raise _check.refusal("seed", "an integer where `start` is given", seed)
    if is_of_arrays:
        return _digits(split, batch_size, shuffle, seed, start, augment)
    data = builder.as_dataset(split=split, as_supervised=True).cache()
    data = _pipeline.batches(data, images, batch_size, shuffle, seed, start)
    facts = IMAGE_SETS[name]
    if augment:
        data = _augment.augmented(data, seed, start, facts.flips)
    return _pipeline.standardized(data, facts.mean, facts.std)


def _count(split: str) -> int:
    return len(_arrays.read(split)[0])


def _digits(
    split: str,
    batch_size: int,
    shuffle: bool,
    seed: int | None,
    start: int | None,
    augment: bool,
) -> "keras.utils.PyDataset":
    """The digits without TensorFlow."""
    facts = IMAGE_SETS["digits"]
    images, labels = _arrays.read(split)
    scaled = (images.astype("float32") / 255 - facts.mean) / facts.std
    black = -np.divide(facts.mean, facts.std)
    if seed is None:
        seed = np.random.randint(2**31)  # which keras.utils.set_random_seed repeats
    data = _arrays.Images(
        (scaled.astype("float32"), labels.astype("int32")),
        batch_size,
        drop_remainder=shuffle,
        seed=seed if shuffle else None,
        augment=functools.partial(_augment.moved, flips=facts.flips, black=black)
        if augment
        else None,
    )
    return data if start is None else _arrays.Stream(data, start)
