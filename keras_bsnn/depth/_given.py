"""What each layer of a stack is given at every call: arrays that the stack keeps."""

import inspect
from typing import Any

import keras
import numpy as np

from keras_bsnn.depth import _checks
from keras_bsnn.ops import _check

KIND = "a dict from names of arguments of `block` to arrays, or dicts of such"


def given(per_layer, depth, block):
    """`per_layer` of a stack as arrays: of booleans, of int32 or of `floatx`.

    Raises:
        ValueError: it is not of the kind that `DepthStack` describes, its block has no
            such argument, or an array has another depth.
    """
    if per_layer is None:
        return {}
    if not isinstance(per_layer, dict):
        raise _check.refusal("per_layer", KIND, per_layer)
    parameters = inspect.signature(block.call).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in per_layer:
        if name not in parameters and not takes_all:
            kind = f"a dict whose keys are arguments of {block.name!r}"
            raise _check.refusal("per_layer", kind, name, known=parameters)
    found = {name: _array(name, value) for name, value in per_layer.items()}
    _checks.check_per_layer(found, depth)
    return found


def _array(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _array(name, entry) for key, entry in value.items()}
    kind = "an array of numbers"
    array = _check.interpreted(f"per_layer[{name!r}]", kind, _numpy, value)
    if array.dtype.kind not in "biuf":
        raise _check.refusal(f"per_layer[{name!r}]", kind, value)
    kinds = {"b": "bool", "f": keras.config.floatx()}
    return array.astype(kinds.get(array.dtype.kind, "int32"))


def _numpy(value):
    is_tensor = keras.ops.is_tensor(value)
    return np.asarray(keras.ops.convert_to_numpy(value) if is_tensor else value)


def to_config(arrays):
    """Arrays of a stack as lists."""
    return keras.tree.map_structure(lambda x: x.tolist(), arrays) or None


def joined(arrays, per_layer):
    """What a stack gives each layer, and what its call gives them.

    Raises:
        ValueError: both give an argument of the same name.
    """
    if twice := sorted(arrays.keys() & (per_layer or {}).keys()):
        raise ValueError(
            "`per_layer` of a call must not name what that of the stack names. "
            f"Received: {twice}"
        )
    return {**arrays, **(per_layer or {})}
