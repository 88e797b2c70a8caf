"""Steps of `tf.data` that the data sets share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

LARGEST = 2**31 - 21  # the largest count that TensorFlow's 32-bit integers can hold


def standardized(
    data: "tf.data.Dataset", mean: tuple[float, ...], std: tuple[float, ...]
) -> "tf.data.Dataset":
    """Batches of byte images as float32, each channel with mean 0 and deviation 1."""
    import tensorflow as tf

    mean, std = tf.constant(mean), tf.constant(std)

    def standardize(image: "tf.Tensor", label: "tf.Tensor") -> tuple:
        return (tf.cast(image, tf.float32) / 255 - mean) / std, label

    return data.map(standardize, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def batches(
    data: "tf.data.Dataset",
    images: int,
    batch_size: int,
    shuffle: bool,
    seed: int | None,
    start: int | None,
) -> "tf.data.Dataset":
    """One epoch of batches, or an endless stream of epochs if `start` is given."""
    size = {
        "batch_size": batch_size,
        "drop_remainder": shuffle or images % batch_size == 0,
    }
    if start is not None:
        return _endless(data, images, size, seed if shuffle else None, start)
    if shuffle:
        data = data.shuffle(images, seed=seed)
    return data.batch(**size)


def _endless(
    data: "tf.data.Dataset",
    images: int,
    size: dict[str, Any],
    seed: int | None,
    start: int,
) -> "tf.data.Dataset":
    """Batches of one epoch after another, without the first `start` batches.

    `Dataset.shuffle` would also depend on the global seed, and on how often the data
    set was iterated before.

    Args:
        data: The images and labels, one at a time.
        images: Their number.
        size: The arguments of `Dataset.batch`.
        seed: The seed of the order, or `None` for the order of `data`.
        start: The number of batches to skip.
    """
    import tensorflow as tf

    everything = next(iter(data.batch(images)))

    def places(epoch: Any) -> "tf.data.Dataset":
        order = tf.range(images)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, [seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order).batch(**size)

    def batch(chosen: "tf.Tensor") -> tuple:
        return tuple(tf.gather(part, chosen) for part in everything)

    first, rest = divmod(start, len(places(0)))
    epochs = tf.data.Dataset.counter(first)
    return epochs.flat_map(places).skip(rest).map(batch, tf.data.AUTOTUNE)
