"""The digits where TensorFlow is not installed, as `keras.utils.PyDataset`."""

import re
from collections.abc import Callable

import keras
import numpy as np

from keras_bsnn._types import Array
from keras_bsnn.datasets import _scikit_learn

SPLIT = re.compile(r"(train|test)(?:\[(\d+%?)?:(\d+%?)?\])?")


def read(split: str) -> tuple[Array, Array]:
    """The images and labels of a split, or of a slice such as `"train[:90%]"`."""
    images, labels, splits = _scikit_learn.digits()
    found = SPLIT.fullmatch(split)
    if found is None:
        raise ValueError("A split is 'train' or 'test', or a slice of one.")
    name, *ends = found.groups()
    chosen = splits[name][slice(*(_place(end, len(splits[name])) for end in ends))]
    return images[chosen], labels[chosen]


def _place(end: str | None, images: int) -> int | None:
    """Where a slice begins or ends, which is a number, or a percentage."""
    if end is None:
        return None
    share = images / 100 if end.endswith("%") else 1
    return round(share * int(end.removesuffix("%")))


class Images(keras.utils.PyDataset):
    """One epoch of batches; another one, in a new order, after each epoch of `fit`.

    Args:
        data: Images, float32, and labels.
        batch_size: An integer.
        drop_remainder: Whether a last batch that is smaller is left out.
        seed: The seed of the orders; `None` keeps that of the data.
        augment: Callable of images and a list of integers, the seed of a batch, that
            returns other images. Defaults to `None`.
    """

    def __init__(
        self,
        data: tuple[Array, Array],
        batch_size: int,
        drop_remainder: bool,
        seed: int | None,
        augment: Callable[[Array, list[int]], Array] | None = None,
    ):
        super().__init__()
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.augment = augment
        rest = 0 if drop_remainder else batch_size - 1
        self.count = (len(data[0]) + rest) // batch_size
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Array, ...]:
        if index >= len(self):
            raise IndexError(index)  # ends a loop over the batches
        return self.batch(self.epoch, index)

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def batch(self, epoch: int, index: int) -> tuple[Array, ...]:
        """The batch at a place of an epoch."""
        order = np.arange(len(self.data[0]))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        chosen = order[index * self.batch_size :][: self.batch_size]
        images, labels = (part[chosen] for part in self.data)
        if self.augment is not None and self.seed is not None:
            images = self.augment(images, [self.seed, epoch, index])
        return images, labels


class Stream(keras.utils.PyDataset):
    """Epochs without an end, from batch number `start` on."""

    def __init__(self, images: Images, start: int):
        super().__init__()
        self.images, self.start = images, start

    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, index: int) -> tuple[Array, ...]:
        return self.images.batch(*divmod(self.start + index, len(self.images)))
