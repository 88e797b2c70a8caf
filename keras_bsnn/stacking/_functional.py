"""Models as functional ones, if they can be read so."""

from typing import Any

import keras

from keras_bsnn import _model
from keras_bsnn.ops import _check
from keras_bsnn.stacking._opened import NotOpened, opened


def specs(inputs):
    """What a model is called with, without what Keras remembers of it."""
    if inputs is None:
        return None
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, x.dtype, name=x.name), inputs
    )


def as_functional(model: keras.Model, inputs: Any = None) -> keras.Model:
    """A model as a functional one.

    Args:
        model: as for `stack_layers`.
        inputs: as for `stack_layers`.
    """
    if _model.is_functional(model):
        return model
    if not isinstance(model, keras.Model) or isinstance(model, keras.Sequential):
        kind = "a Keras model; a Sequential must be built"
        raise _check.refusal("model", kind, model)
    if inputs is None:
        raise ValueError(
            "`inputs` must be given for a model that has a `call` of its own: what it "
            "is called with, of `keras.Input`. Received: inputs=None, model="
            f"{model.name!r} of class {type(model).__name__}"
        )
    inputs = specs(inputs)
    model(inputs)  # which builds it
    try:
        return opened(model, (inputs,), {})
    except NotOpened as reason:
        raise ValueError(
            "`model` must be a functional model, or one whose `call` only calls layers "
            f"and functions of Keras. Received: {model.name!r} of class "
            f"{type(model).__name__}: {reason}"
        ) from reason
