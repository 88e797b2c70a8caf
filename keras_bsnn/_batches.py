"""Data sets in batches, which are iterated over repeatedly."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

SAMPLES_AT_ONCE = 1000  # of an array


class Inputs:
    """Yields the inputs of a data set in batches, each time it is iterated over.

    Args:
        dataset: an array, or an iterable as `check_dataset` accepts it.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __iter__(self):
        if hasattr(self.dataset, "shape"):
            return (
                self.dataset[i : i + SAMPLES_AT_ONCE]
                for i in range(0, len(self.dataset), SAMPLES_AT_ONCE)
            )
        inputs = (keras.utils.unpack_x_y_sample_weight(x)[0] for x in self.dataset)
        return (keras.tree.map_structure(np.asarray, x) for x in inputs)


class Files:
    """Keeps arrays in files, and reads them each time it is iterated over.

    Args:
        arrays: iterable of arrays. It may read files of the same folder.
        folder: path of a folder that exists for as long as the files are needed.
    """

    def __init__(self, arrays: Iterable, folder: str | Path):
        self.paths = []
        folder = tempfile.mkdtemp(dir=folder)
        for i, x in enumerate(arrays):
            self.paths.append(Path(folder) / f"{i}.npy")
            np.save(self.paths[-1], x)

    def __iter__(self):
        return map(np.load, self.paths)

    def __del__(self):
        for path in self.paths:
            path.unlink(missing_ok=True)


def check_dataset(dataset: Iterable) -> None:
    """Raises `ValueError` for data that are empty, endless, or can be read only once.

    Args:
        dataset: an array, or an iterable of batches.
    """
    if iter(dataset) is dataset:
        raise ValueError(
            "`dataset` must be one that can be iterated over repeatedly, such as a "
            f"tf.data.Dataset or a list of batches. Received: {dataset!r}"
        )
    if getattr(dataset, "cardinality", lambda: 0)() == -1:
        raise ValueError(
            "`dataset` must end: call take(steps) on a tf.data.Dataset that repeats. "
            f"Received: {dataset!r}"
        )
    if next(iter(dataset), None) is None:
        raise ValueError("`dataset` must have at least one batch: it is empty.")
