"""The initializers, regularizers and constraints that layers are given."""

import keras

from keras_bsnn.ops import _check

READERS = {
    "initializer": keras.initializers.get,
    "regularizer": keras.regularizers.get,
    "constraint": keras.constraints.get,
}


def get(name, identifier):
    """What stands for the argument `name`, which ends with what it is.

    Raises:
        ValueError: Keras cannot tell.
    """
    kind = name.rpartition("_")[2]
    known = f"{'an' if kind == 'initializer' else 'a'} {kind} or its name"
    return _check.interpreted(name, known, READERS[kind], identifier)
