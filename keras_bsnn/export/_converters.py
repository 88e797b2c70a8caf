"""Checks and errors that the files of other runtimes share."""

from collections.abc import Iterable

import keras


def check_backend(name: str, others: tuple[str, ...] = ()) -> None:
    """Raises `ValueError` unless Keras runs on TensorFlow, or one of `others`."""
    if keras.backend.backend() not in ("tensorflow", *others):
        raise ValueError(
            f"{name} files are written by TensorFlow. Received: the backend "
            f"{keras.backend.backend()!r}. Save the model, and load it where "
            "KERAS_BACKEND is tensorflow."
        )


def lacking(name: str, operations: Iterable[str]) -> ValueError:
    """The error for a model that a runtime cannot run."""
    return ValueError(
        f"`model` must have operations that {name} has. It lacks: "
        f"{', '.join(sorted(operations))}."
    )
