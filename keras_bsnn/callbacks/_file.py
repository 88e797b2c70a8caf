"""One file that holds the state of a training run, written whole or not at all."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bsnn import _backend
from keras_bsnn._types import Variables

NAME = "training.npz"
HEAD = "head"  # the array that describes the others


def path_in(folder: str | os.PathLike[str]) -> Path:
    """The path of the file in a folder."""
    return Path(folder) / NAME


def save(path: Path, variables: Variables, progress: dict[str, Any]) -> None:
    """Replaces the file with the values of variables and `progress`, a dict for JSON.

    Whenever the process is killed, the file is the old one or the new one. An
    unfinished new file keeps another name until the next call. If several processes
    train together, all must call this function; the first one writes.
    """
    arrays = [*map(_backend.read_whole, variables)]
    if not _backend.is_first_process():
        return
    head = {"progress": progress, "variables": [*map(_described, variables)]}
    text = json.dumps(head, default=_plain)
    named: dict[str, Any] = {HEAD: np.array(text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(_unfinished(path), "wb") as file:
        np.savez(file, *arrays, **named)
        file.flush()
        os.fsync(file.fileno())
    os.replace(_unfinished(path), path)
    _sync_folder(path.parent)


def progress(path: Path) -> dict[str, Any] | None:
    """The progress that `save` was given, or `None` if there is no file.

    Raises:
        ValueError: The file is damaged.
    """
    return _read_head(path)["progress"] if path.exists() else None


def restore(path: Path, variables: Variables) -> None:
    """Sets variables to the values in the file: all of them, or none.

    Raises:
        ValueError: The file is damaged, or holds other variables.
    """
    _check_variables(path, _read_head(path)["variables"], variables)
    _check_parts(path, len(variables))
    with np.load(path) as arrays:
        for i, variable in enumerate(variables):
            _backend.assign_whole(variable, arrays[f"arr_{i}"].view(_dtype(variable)))


def remove(path: Path) -> None:
    """Removes the file, an unfinished one, and the folder if it is then empty."""
    if not _backend.is_first_process():
        return
    path.unlink(missing_ok=True)
    remove_unfinished(path)
    if path.parent.exists() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def remove_unfinished(path: Path) -> None:
    """Removes what a process that was killed left of a new file."""
    if _backend.is_first_process():
        _unfinished(path).unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".unfinished")


def _sync_folder(folder: Path) -> None:
    """Writes the new name to the disk, in case the machine loses power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    """A NumPy array or number as plain Python, for JSON."""
    return np.asarray(value).tolist()


def _dtype(variable: keras.Variable) -> np.dtype:
    """The dtype for NumPy, which does not know the name of bfloat16."""
    return keras.ops.convert_to_numpy(keras.ops.zeros(1, variable.dtype)).dtype


def _described(variable: keras.Variable) -> list[Any]:
    return [variable.path, [*variable.shape], variable.dtype]


def _read_head(path: Path) -> dict[str, Any]:
    try:
        with np.load(path) as arrays:
            return json.loads(str(arrays[HEAD]))
    except Exception as error:  # nobody knows what a damaged file may raise
        raise _damaged(path, error) from error


def _check_parts(path: Path, count: int) -> None:
    """Raises `ValueError` unless all arrays are present and intact."""
    names = {f"{HEAD}.npy", *(f"arr_{i}.npy" for i in range(count))}
    try:
        with zipfile.ZipFile(path) as parts:
            bad = parts.testzip() or names ^ {*parts.namelist()}
    except Exception as error:  # nobody knows what a damaged file may raise
        raise _damaged(path, error) from error
    if bad:
        raise _damaged(path, f"incomplete: {bad}")


def _damaged(path: Path, reason: Exception | str) -> ValueError:
    return ValueError(
        f"The backup {str(path)!r} is damaged ({reason}). Training cannot "
        "resume from it: put a copy in its place, or remove it to start anew."
    )


def _check_variables(path: Path, saved: list[Any], variables: Variables) -> None:
    """Compares shapes and dtypes, not names: Keras numbers the layers of a process."""
    found = [*map(_described, variables)]
    for there, here in zip(saved, found, strict=False):
        if there[1:] != here[1:]:
            raise ValueError(
                f"The backup {str(path)!r} is of another model or optimizer: it holds "
                f"{there[0]!r} of shape {tuple(there[1])} and {there[2]}, where "
                f"{here[0]!r} has {tuple(here[1])} and {here[2]}."
            )
    if len(saved) != len(found):
        raise ValueError(
            f"The backup {str(path)!r} is of another model or optimizer: it holds "
            f"{len(saved)} variables, and there are {len(found)}."
        )
