"""What all exports share: the whole model, and a path that holds all of it or none."""

import contextlib
import functools
import os
import tempfile

import keras

from keras_bsnn import _model


@contextlib.contextmanager
def complete(path):
    """Yields a path to write to, which becomes `path` if nothing goes wrong."""
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


def whole(model, preprocessing=None):
    """Returns a model together with what comes before it.

    Raises:
        ValueError: `model` or `preprocessing` is not a built model, or a weight is not
            finite.
    """
    check("model", model)
    if preprocessing is None:
        return model
    check("preprocessing", preprocessing)
    inputs = preprocessing(input_of(preprocessing), training=False)
    return keras.Model(input_of(preprocessing), model(inputs, training=False))


def check(name, model):
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"`{name}` must be a built keras.Model. Received: {model!r}")
    _model.check_finite(model.weights)


def signature(model, batch_size=None):
    """The arguments of a call of a model, a list of a structure of `InputSpec`."""
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


def is_subclassed(model):
    return not getattr(model, "inputs", None)


def input_of(model):
    if is_subclassed(model):
        raise ValueError(
            "`preprocessing` must be sequential or functional, so that the shape of "
            f"its input is known. Received: {model!r}"
        )
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
