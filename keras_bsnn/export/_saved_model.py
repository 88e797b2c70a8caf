"""TensorFlow SavedModels."""

import os

import keras

from keras_bsnn._requirements import extra
from keras_bsnn.export import _certificate, _draft
from keras_bsnn.export._converters import check_backend


def saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    preprocessing: keras.Model | None = None,
    signatures: dict[str, keras.Model] | None = None,
    tolerance: float = 1e-4,
) -> None:
    """Exports a model as a TensorFlow SavedModel, which is served without this package.

    The folder is written completely or not at all. It has a `certificate.json`, which
    `keras_bsnn.export.verify` reads, with facts about the kernels, and hashes of the
    weights and of the files.

    Args:
        model: A built Keras model.
        path: Path of the folder to create.
        preprocessing: A built Keras model whose outputs are the inputs of `model`, to
            be served as its first part, so that the served model takes raw inputs.
            Defaults to `None`.
        signatures: Dict from names to built Keras models of the same inputs, to be
            served alongside `model`, whose own names are `"serve"` and
            `"serving_default"`. A model with a dict as its output has named outputs.
            Defaults to `None`.
        tolerance: Number, the largest orthogonality error that kernels with the
            constraint `Orthogonal` may have. Defaults to 1e-4.

    Raises:
        FileExistsError: If `path` exists already.
        ValueError: If a model is not built or has other inputs, if a weight is not
            finite, if the orthogonality error of a kernel is above `tolerance`, or if
            Keras runs on PyTorch.
        ModuleNotFoundError: If TensorFlow is not installed.

    Source: this package.

    Example:

    >>> import os, tempfile, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=8, input_shape=(4,))
    >>> path = os.path.join(tempfile.mkdtemp(), "model")
    >>> keras_bsnn.export.saved_model(model, path)
    >>> sorted(os.listdir(path))
    ['assets', 'certificate.json', 'fingerprint.pb', 'saved_model.pb', 'variables']
    """
    check_backend("SavedModel", others=("jax",))
    with extra("tensorflow"):
        import tensorflow  # noqa: F401
    models = {"serve": model, **(signatures or {})}
    for name, other in (signatures or {}).items():
        _check_inputs(name, other, model)
    wholes = {name: _draft.whole(m, preprocessing) for name, m in models.items()}
    certificate = _certificate.certify([*models.values()], tolerance)
    with _draft.complete(path) as draft:
        _write(wholes, draft)
        _certificate.write(certificate, draft)


def _check_inputs(name, other, model):
    """Raises `ValueError` for other inputs: the signature would get other data."""
    _draft.check(name := f"signatures[{name!r}]", other)
    shapes = [[tuple(x.shape) for x in m.inputs or ()] for m in (model, other)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise ValueError(
            f"`{name}` must be sequential or functional, like `model`, and have its "
            f"inputs, {shapes[0]}. Received: {shapes[1]}"
        )


def _write(models, path):
    if len(models) == 1:  # also if it is subclassed
        return models["serve"].export(path, verbose=False)
    archive = keras.export.ExportArchive()
    archive.track(_joint(models))  # at once, for what they share
    for name, model in models.items():
        archive.add_endpoint(name, model.__call__, _draft.signature(model))
    archive.write_out(path, verbose=False)


def _joint(models):
    inputs = _draft.input_of(models["serve"])
    return keras.Model(inputs, {name: m(inputs) for name, m in models.items()})
