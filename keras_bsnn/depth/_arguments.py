"""What a stack is called with: shapes and dtypes, and tensors."""

import inspect
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import _checks


def tuples(tree):
    """The structure with tuples for lists, which Keras puts in their place."""
    if isinstance(tree, dict):
        return {key: tuples(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields"):
        return tuple(map(tuples, tree))
    return tree


def specs(tree, dtype=None):
    """A structure of tensors without their values.

    Args:
        tree: the structure.
        dtype: name of the dtype of those of floating point; `None` for their own.
    """

    def spec(x):
        own = keras.backend.standardize_dtype(x.dtype)
        is_float = keras.backend.is_float_dtype(own)
        return keras.KerasTensor(tuple(x.shape), dtype if dtype and is_float else own)

    return _backend.map_tensors(spec, tree)


def of_one_layer(specs):
    """The `Arguments` of the block, from those of a stack."""
    slices = _backend.map_tensors(
        lambda x: keras.KerasTensor(x.shape[1:], x.dtype), specs.per_layer
    )
    return specs._replace(per_layer=slices)


def to_config(specs):
    """The tensors of `Arguments` of `keras.KerasTensor`, for a config."""
    return keras.saving.serialize_keras_object(
        _backend.map_tensors(lambda x: f"{x.dtype} {list(x.shape)}", specs.tensors())
    )


def from_config(config, flags):
    """The inverse of `to_config`; files of 0.1.0 have no keywords."""

    def spec(text):
        dtype, _, shape = text.partition(" ")
        sizes = (n.strip() for n in shape[1:-1].split(",") if n)
        return keras.KerasTensor(
            tuple(None if n == "None" else int(n) for n in sizes), dtype
        )

    tree = tuples(keras.saving.deserialize_keras_object(config))
    tensors = (*_backend.map_tensors(spec, tree), {})[:4]
    return Arguments.of(tensors, flags)


class Arguments(NamedTuple):
    """What a stack is called with; see `DepthStack`.

    Attributes:
        inputs, context, per_layer, keywords: structures of tensors.
        flags: dict of what is no tensor.
        masks: those of `inputs`, `context` and `keywords`.
    """

    inputs: Any
    context: tuple = ()
    per_layer: dict | None = None
    keywords: dict | None = None
    flags: dict | None = None
    masks: tuple = (None, None, None)

    @classmethod
    def of(cls, tensors, flags, masks=(None, None, None)):
        """The inverse of `tensors`."""
        inputs, context, per_layer, keywords = tensors
        return cls(inputs, context, per_layer, keywords, flags or {}, masks)

    def tensors(self):
        """All of them, as one structure."""
        groups = self.inputs, self.context, self.per_layer or {}, self.keywords or {}
        return tuples(groups)


def parted(kwargs, call):
    """The keyword arguments of a stack, and those of its block.

    Args:
        kwargs: dict of all of them.
        call: the `call` of the stack.

    Returns:
        Those of the stack, and a pair of dicts, each `None` if it is empty: tensors,
        or structures of such, and what is none.
    """
    names = inspect.signature(call).parameters
    own = {key: value for key, value in kwargs.items() if key in names}
    keywords, flags = (dict(own.pop(key, None) or {}) for key in ("keywords", "flags"))
    for key, value in kwargs.items():
        if key not in names:
            (keywords if _has_tensor(value) else flags)[key] = value
    return own, (keywords or None, flags or None)


def _has_tensor(tree):
    kinds = keras.KerasTensor, np.ndarray
    return any(
        isinstance(x, kinds) or ops.is_tensor(x) for x in keras.tree.flatten(tree)
    )


def converted(arguments, stack):
    """The `Arguments` of a call of a stack, as tensors.

    Floating point inputs are in the dtype of its policy; integers stay what they are.

    Raises:
        ValueError: a tensor of `per_layer` has another depth.
    """
    _checks.check_per_layer(arguments.per_layer or {}, stack.depth)
    inputs, *others = _backend.map_tensors(ops.convert_to_tensor, arguments.tensors())
    inputs = _backend.map_tensors(
        lambda x: ops.cast(x, stack.compute_dtype) if _backend.is_float(x) else x,
        inputs,
    )
    return Arguments.of((inputs, *others), arguments.flags, arguments.masks)
