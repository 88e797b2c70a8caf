"""Parts of every export: the whole model, and a path with all of it or nothing."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import keras

from keras_bsnn import _model


@contextlib.contextmanager
def complete(path: str | os.PathLike) -> Iterator[str]:
    """Yields a path to write to, which is renamed to `path` if there is no error."""
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise FileExistsError(
            f"`path` must not exist yet, so that no model is lost. Received: {path}"
        )
    parent, name = os.path.split(path)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as folder:
        draft = os.path.join(folder, name)
        yield draft
        os.rename(draft, path)


def whole(model: keras.Model, preprocessing: keras.Model | None = None) -> keras.Model:
    """Returns a model together with its preprocessing.

    Raises:
        ValueError: If `model` or `preprocessing` is not a built model, or if a weight
            is not finite.
    """
    check("model", model)
    if preprocessing is None:
        return model
    check("preprocessing", preprocessing)
    inputs = preprocessing(input_of(preprocessing), training=False)
    return keras.Model(input_of(preprocessing), model(inputs, training=False))


def check(name: str, model: keras.Model) -> None:
    """Raises `ValueError` unless a model is built and all its weights are finite."""
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"`{name}` must be a built keras.Model. Received: {model!r}")
    _model.check_finite(model.weights)


def signature(model: keras.Model, batch_size: int | None = None) -> list[Any]:
    """The argument of a call of a model: a list of one structure of `InputSpec`."""
    if is_subclassed(model):
        shapes = model.get_build_config()["input_shape"]
        spec = functools.partial(_spec, model.input_dtype, batch_size)
        return [keras.tree.map_shape_structure(spec, shapes)]
    inputs = keras.tree.map_structure(
        lambda x: _spec(x.dtype, batch_size, x.shape, x.name), input_of(model)
    )
    return [inputs]


def _spec(dtype, batch_size, shape, name=None):
    return keras.InputSpec(dtype, (batch_size, *shape[1:]), name=name)


def is_subclassed(model: keras.Model) -> bool:
    """Whether a model is neither sequential nor functional."""
    return not getattr(model, "inputs", None)


def input_of(model: keras.Model) -> Any:
    """The symbolic inputs of a sequential or functional model."""
    if is_subclassed(model):
        raise ValueError(
            "`preprocessing` must be sequential or functional, so that the shape of "
            f"its input is known. Received: {model!r}"
        )
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
