"""Builders of tensorflow_datasets whose data are on the disk."""

import functools
import logging
import tempfile
from typing import Any

from keras_bsnn._requirements import extra

logger = logging.getLogger("keras_bsnn.datasets")


def readable(name: str, data_dir: str | None) -> Any:
    """The builder of an image set, which has been checked to be readable."""
    try:
        builder = _prepared(name, data_dir)
    except (OSError, ImportError):
        raise
    except Exception as error:  # nobody knows what a damaged file may raise
        where = "its folder" if data_dir is None else data_dir
        raise ValueError(
            f"The data set {name!r} in {where} is damaged: {error}"
        ) from error
    if not builder.info.splits:
        raise ValueError(
            f"The data set {name!r} in {builder.data_dir} is damaged: "
            "dataset_info.json is missing, or lists no data."
        )
    return builder


def count(builder: Any, split: str) -> int:
    """The number of images in a split."""
    return builder.info.splits[split].num_examples


def _prepared(name: str, data_dir: str | None) -> Any:
    with extra("datasets"):
        import tensorflow  # noqa: F401  (without which tfds can be imported)
        import tensorflow_datasets as tfds

    if name == "digits":
        return _prepared_digits(data_dir)
    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise FileNotFoundError(
                f"The data set {builder.info.full_name} is not in {builder.data_dir} "
                f"and could not be downloaded: {error!r}. Set the environment variable "
                "TFDS_DATA_DIR (or `data_dir`) to a folder that holds it, or use "
                "'digits', which needs no download."
            ) from error
    return builder


@functools.lru_cache(maxsize=8)
def _prepared_digits(data_dir: str | None) -> Any:
    from keras_bsnn.datasets._digits import Digits

    builder = Digits(data_dir=data_dir)
    try:
        builder.download_and_prepare()
    except OSError as error:
        folder = tempfile.mkdtemp(prefix="digits-")
        logger.warning("digits: %s; they are written to %s instead.", error, folder)
        builder = Digits(data_dir=folder)
        builder.download_and_prepare()
    return builder
