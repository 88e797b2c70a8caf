"""Images that are shifted and mirrored at random, the same for the same seed."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_bsnn._types import Array

if TYPE_CHECKING:
    import tensorflow as tf

SHARE = 8  # of the height and width, by which an image is shifted at most


def augmented(
    data: "tf.data.Dataset", seed: int | None, start: int | None, flips: bool
) -> "tf.data.Dataset":
    """Batches of byte images, of which each is drawn anew.

    Args:
        data: The batches of images and labels.
        seed: The seed, or `None` for another one each time.
        start: The number of the first batch in an endless stream, whose images depend
            on the seed and the number alone. `None` for an epoch: each pass over `data`
            then draws others.
        flips: Whether to mirror half of the images.
    """
    import tensorflow as tf

    if start is None:
        numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    else:
        numbers = tf.data.Dataset.counter(start)

    def drawn(batch: tuple, number: "tf.Tensor") -> tuple:
        images, labels = batch
        pair = tf.stack([tf.constant(seed or 0, tf.int64), number])
        return _moved(images, pair, flips), labels

    return tf.data.Dataset.zip((data, numbers)).map(drawn, tf.data.AUTOTUNE)


def _moved(images: "tf.Tensor", seed: "tf.Tensor", flips: bool) -> "tf.Tensor":
    import tensorflow as tf

    count, height, width, _ = images.shape
    # Not the seed itself, by which images are shuffled.
    seed = tf.random.experimental.stateless_fold_in(seed, 1)
    of_rows, of_columns, of_flips = tf.unstack(
        tf.random.experimental.stateless_split(seed, 3)
    )

    def whole(seed: "tf.Tensor", largest: int) -> "tf.Tensor":
        return tf.random.stateless_uniform([count, 1], seed, 0, largest + 1, tf.int32)

    down, right = height // SHARE, width // SHARE
    rows = whole(of_rows, 2 * down) + tf.range(height)
    columns = tf.range(width)
    if flips:
        columns = tf.where(whole(of_flips, 1) > 0, columns[::-1], columns)
    columns += whole(of_columns, 2 * right)
    padded = tf.pad(images, [(0, 0), (down, down), (right, right), (0, 0)])
    found = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(found, columns, axis=2, batch_dims=1)


def moved(images: Array, seed: list[int], flips: bool, black: Any) -> Array:
    """The same without TensorFlow.

    Args:
        images: Array of shape `(batch, height, width, channels)`.
        seed: List of integers, the seed of this very batch.
        flips: Whether to mirror half of the images.
        black: What a byte of 0 is in the images, for each channel.
    """
    random = np.random.default_rng([*seed, 1])
    count, height, width, channels = images.shape
    down, right = height // SHARE, width // SHARE
    rows = random.integers(2 * down + 1, size=(count, 1)) + np.arange(height)
    columns = np.tile(np.arange(width), (count, 1))
    if flips:
        columns = np.where(
            random.integers(2, size=(count, 1)), columns[:, ::-1], columns
        )
    columns = columns + random.integers(2 * right + 1, size=(count, 1))
    padded = np.empty(
        (count, height + 2 * down, width + 2 * right, channels), images.dtype
    )
    padded[:] = black
    padded[:, down : down + height, right : right + width] = images
    each = np.arange(count)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None]]
