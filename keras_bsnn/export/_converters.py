"""Checks and errors that the files of other runtimes share."""

from collections.abc import Iterable

import keras


def check_backend(name: str) -> None:
    """Raises `ValueError` unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
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
