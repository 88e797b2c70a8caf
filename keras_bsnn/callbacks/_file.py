"""One file that holds where a training stands: written whole, or not at all."""

import json
import os
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_bsnn.callbacks import _variables

NAME = "training.npz"
HEAD = "head"  # the array that says what the others are


def path_in(folder):
    return Path(folder) / NAME


def save(path, variables, progress):
    """Writes values of variables and `progress`, a dict for JSON, in place of `path`.

    Whenever the process is killed, the file is the old one or the new one. What was
    written of the new one stays under another name, until the next call. Of processes
    that train together all must call; one writes.
    """
    arrays = [*map(_variables.read, variables)]
    if not _variables.is_of_first_process():
        return
    head = {"progress": progress, "variables": [*map(_described, variables)]}
    text = json.dumps(head, default=_plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(_unfinished(path), "wb") as file:
        np.savez(file, *arrays, **{HEAD: np.array(text)})
        file.flush()
        os.fsync(file.fileno())
    os.replace(_unfinished(path), path)
    _sync_folder(path.parent)


def progress(path):
    """What `save` was given, or `None` where there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    return _read_head(path)["progress"] if path.exists() else None


def restore(path, variables):
    """Sets variables to the values in the file; all of them, or none.

    Raises:
        ValueError: the file is damaged, or of other variables.
    """
    _check_variables(path, _read_head(path)["variables"], variables)
    _check_parts(path, len(variables))
    with np.load(path) as arrays:
        for i, variable in enumerate(variables):
            _variables.assign(variable, arrays[f"arr_{i}"].view(_dtype(variable)))


def remove(path):
    """Removes the file, what is left of one that was not finished, and the folder."""
    if not _variables.is_of_first_process():
        return
    path.unlink(missing_ok=True)
    remove_unfinished(path)
    if path.parent.exists() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def remove_unfinished(path):
    if _variables.is_of_first_process():
        _unfinished(path).unlink(missing_ok=True)


def _unfinished(path):
    return path.with_suffix(".unfinished")


def _sync_folder(folder):
    """So that a new name is on the disk, too, should the machine lose power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value):
    """An array or a number of numpy, for JSON."""
    return np.asarray(value).tolist()


def _dtype(variable):
    """For numpy, which does not know the name of bfloat16."""
    return keras.ops.convert_to_numpy(keras.ops.zeros(1, variable.dtype)).dtype


def _described(variable):
    return [variable.path, [*variable.shape], variable.dtype]


def _read_head(path):
    try:
        with np.load(path) as arrays:
            return json.loads(str(arrays[HEAD]))
    except Exception as error:  # what is damaged may raise anything
        raise _damaged(path, error) from error


def _check_parts(path, count):
    """That all arrays are there, and whole."""
    names = {f"{HEAD}.npy", *(f"arr_{i}.npy" for i in range(count))}
    try:
        with zipfile.ZipFile(path) as parts:
            bad = parts.testzip() or names ^ {*parts.namelist()}
    except Exception as error:  # what is damaged may raise anything
        raise _damaged(path, error) from error
    if bad:
        raise _damaged(path, f"not whole: {bad}")


def _damaged(path, reason):
    return ValueError(
        f"The backup {str(path)!r} is damaged ({reason}). The training cannot go on "
        "from it: put a copy in its place, or remove it to start anew."
    )


def _check_variables(path, saved, variables):
    """Names may differ: Keras numbers the layers of a process."""
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
