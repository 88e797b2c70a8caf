"""Certificates of exported models: facts and hashes, by which changes are found."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bsnn import manifolds
from keras_bsnn._record import versions
from keras_bsnn.export._operator_norm import operator_norm
from keras_bsnn.ops import orthogonal

NAME = "certificate.json"
SEAL = "certificate_sha256"


def certify(models: list[keras.Model], tolerance: float) -> dict[str, Any]:
    """Returns a dict for JSON: versions, a hash of the weights, facts on each kernel.

    Weights that models share count once.

    Args:
        models: List of built models.
        tolerance: Number, the largest orthogonality error that is allowed.

    Raises:
        ValueError: If a kernel with the constraint `Orthogonal` has an orthogonality
            error above `tolerance`.
    """
    variables = {id(v): v for model in models for v in model.weights}.values()
    weights = [(v, keras.ops.convert_to_numpy(v)) for v in variables]
    kernels = [_of_kernel(v, w) for v, w in weights if _is_kernel(v)]
    _check_orthogonal(kernels, tolerance)
    return {
        "versions": versions(),
        "parameters": int(sum(w.size for _, w in weights)),
        "weights_sha256": _hash_of_weights(weights),
        "kernels": kernels,
    }


def write(certificate: dict[str, Any], folder: str | os.PathLike) -> None:
    """Writes a certificate with the hash of each file in `folder`, alongside them."""
    record = {**certificate, "files_sha256": _hashes_of_files(folder)}
    Path(folder, NAME).write_bytes(_sealed(record))


def verify(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the certificate of an exported model, and checks that no file has changed.

    Args:
        path: Path of a folder that `keras_bsnn.export.saved_model` has written.

    Returns:
        A dict: `versions` of the packages that wrote it, the number of `parameters`,
        `weights_sha256`, `files_sha256`, and `kernels`, a list of dicts with `path`,
        `shape`, `orthogonal` (whether it is constrained to be), `orthogonality_error`
        and `largest_singular_value`; for a stack, the largest in any layer. An
        orthogonal convolution has two kernels, and as a linear map it makes no length
        larger than by the product of their largest singular values.

    Raises:
        FileNotFoundError: If there is no certificate.
        ValueError: If a file is missing, new or changed, or if the certificate is.
            Hashes detect corruption, not tampering.

    Source: this package.

    Example:

    >>> import os, tempfile, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=8, input_shape=(4,))
    >>> path = os.path.join(tempfile.mkdtemp(), "model")
    >>> keras_bsnn.export.saved_model(model, path)
    >>> kernels = keras_bsnn.export.verify(path)["kernels"]
    >>> max(k["orthogonality_error"] for k in kernels if k["orthogonal"]) < 1e-5
    True
    """
    record = _read(path)
    found, expected = _hashes_of_files(path), record["files_sha256"]
    if found != expected:
        different = found.items() ^ expected.items()
        names = sorted({name for name, _ in different})
        raise ValueError(
            f"{path} is not what was exported: {', '.join(names)} changed, "
            "went or came."
        )
    return record


def _sealed(record):
    """The text of a certificate with its own hash."""
    seal = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    return json.dumps({**record, SEAL: seal}, indent=1).encode() + b"\n"


def _read(path):
    text = Path(path, NAME).read_bytes()
    try:
        record = json.loads(text)
        del record[SEAL]
        is_whole = _sealed(record) == text
    except Exception:  # a damaged file may raise anything
        is_whole = False
    if not is_whole:
        raise ValueError(f"{path} is not what was exported: {NAME} changed.")
    return record


def _is_kernel(variable):
    """Whether a variable is on a manifold, or a layer multiplies its inputs by it."""
    if manifolds.of(variable) is not None:
        return True
    rank = len(variable.shape) - manifolds.stacked_axes(variable)
    return variable.name.endswith("kernel") and rank >= 2


def _matrices(variable, values):
    """The matrices of each layer; a convolution multiplies patches by its matrix."""
    manifold = manifolds.of(variable)
    if manifold is not None:
        return manifold.matrices(values)
    layers = values.shape[: manifolds.stacked_axes(variable)]
    return values.reshape(*layers, -1, values.shape[-1])


def _of_kernel(variable, values):
    matrices = _matrices(variable, values)
    error = orthogonal.orthogonality_error(matrices)
    return {
        "path": variable.path,
        "shape": list(variable.shape),
        "orthogonal": manifolds.of(variable) is not None,
        "orthogonality_error": float(keras.ops.max(error)),
        "largest_singular_value": operator_norm(matrices),
    }


def _check_orthogonal(kernels, tolerance):
    for kernel in kernels:
        if kernel["orthogonal"] and not kernel["orthogonality_error"] <= tolerance:
            raise ValueError(
                f"`model` must have orthogonal kernels: {kernel['path']!r} has an "
                f"orthogonality error of {kernel['orthogonality_error']:.3g}, above "
                f"{tolerance:g}. `keras_bsnn.callbacks.retract(model)` brings it back."
            )


def _hash_of_weights(weights):
    """A hash of all values in their order, with their types and shapes."""
    found = hashlib.sha256()
    for _, values in weights:
        found.update(f"{values.dtype} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _hashes_of_files(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _hash_of_file(path)
        for path in sorted(files)
        if path != Path(folder, NAME)
    }


def _hash_of_file(path):
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
