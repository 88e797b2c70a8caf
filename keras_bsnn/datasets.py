"""Image classification sets as `tf.data` pipelines, through tensorflow_datasets."""

import functools
import logging
import tempfile
from typing import NamedTuple

from keras_bsnn._public import public

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

    Returns:
        `tf.data.Dataset` of `(images, labels)`: float32 `(batch, height, width,
        channels)` of mean 0 and deviation 1, and int64 `(batch,)`.

    Raises:
        ValueError: an argument is not of the kind above.
        FileNotFoundError: the data are not there and cannot be downloaded.

    Example:

    >>> import keras_bsnn
    >>> images, labels = next(iter(keras_bsnn.datasets.load("digits", "train", 32)))
    >>> images.shape
    TensorShape([32, 8, 8, 1])
    """
    if name not in IMAGE_SETS:
        raise ValueError(f"`name` must be one of {[*IMAGE_SETS]}. Received: {name!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a positive integer. Received: {batch_size!r}"
        )
    builder = _prepared_builder(name, data_dir)
    images = builder.info.splits[split].num_examples
    if shuffle is None:
        shuffle = split.startswith("train")
    if shuffle and batch_size > images:
        raise ValueError(
            f"`batch_size` must be at most the {images} images of {name!r}, "
            f"split={split!r}. Received: batch_size={batch_size}"
        )
    return _pipeline(builder, name, split, batch_size, shuffle, seed, images)


def _pipeline(builder, name, split, batch_size, shuffle, seed, images):
    import tensorflow as tf

    mean = tf.constant(IMAGE_SETS[name].mean)
    std = tf.constant(IMAGE_SETS[name].std)

    def standardize(image, label):
        return (tf.cast(image, tf.float32) / 255 - mean) / std, label

    dataset = builder.as_dataset(split=split, as_supervised=True).cache()
    if shuffle:
        dataset = dataset.shuffle(images, seed=seed)
    dataset = dataset.batch(
        batch_size, drop_remainder=shuffle or images % batch_size == 0
    )
    return dataset.map(standardize, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


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
