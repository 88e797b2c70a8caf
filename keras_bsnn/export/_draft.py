"""What all exports share: the whole model, and a path that holds all of it or none."""

import contextlib
import os
import tempfile

import keras

from keras_bsnn import _model


@contextlib.contextmanager
def of(path):
    """A path to write to, which becomes `path` if nothing goes wrong."""
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
    """A model with what comes before it.

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
    """Of its call, for Keras; `None` for a subclassed model, where Keras finds it."""
    if is_subclassed(model):
        return None
    inputs = keras.tree.map_structure(
        lambda x: keras.InputSpec(x.dtype, (batch_size, *x.shape[1:]), name=x.name),
        input_of(model),
    )
    return [inputs]


def is_subclassed(model):
    return not getattr(model, "inputs", None)


def input_of(model):
    if is_subclassed(model):
        raise ValueError(
            "`preprocessing` must be sequential or functional, so that the shape of "
            f"its input is known. Received: {model!r}"
        )
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
