"""The initializers, regularizers and constraints that layers are given."""

from collections.abc import Callable
from typing import Any

import keras

from keras_bsnn._types import Identifier
from keras_bsnn.ops import _check

READERS = {
    "initializer": keras.initializers.get,
    "regularizer": keras.regularizers.get,
    "constraint": keras.constraints.get,
}


def get(name: str, identifier: Identifier) -> Callable[..., Any] | None:
    """The object that an argument stands for.

    Args:
        name: String, the name of the argument, which ends with its kind, such as
            `"bias_initializer"`.
        identifier: An initializer, regularizer or constraint, its name or its config,
            or `None`.

    Raises:
        ValueError: If Keras does not know it.
    """
    kind = name.rpartition("_")[2]
    known = f"{'an' if kind == 'initializer' else 'a'} {kind} or its name"
    return _check.interpreted(name, known, READERS[kind], identifier)
