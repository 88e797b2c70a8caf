"""Structures of tensors, in which `None` stands for a tensor that is not there."""

import keras


def flatten(tree):
    """The tensors of a structure, in a list."""
    return [x for x in keras.tree.flatten(tree) if x is not None]


def pack_like(tree, tensors):
    """The inverse of `flatten`: `tensors` in the structure of `tree`."""
    tensors = iter(tensors)
    # Not `map_structure`, which on PyTorch takes dicts in another order.
    filled = [x if x is None else next(tensors) for x in keras.tree.flatten(tree)]
    return keras.tree.pack_sequence_as(tree, filled)


def map_tensors(function, *trees):
    """`function` of each tensor; `None` where the first structure has none."""

    def of_leaves(first, *others):
        return None if first is None else function(first, *others)

    return keras.tree.map_structure(of_leaves, *trees)


def is_float(x):
    """Whether a tensor has a gradient: it is of floating point."""
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


def floats(tree):
    """The structure, with `None` instead of tensors that have no gradient."""
    return map_tensors(lambda x: x if is_float(x) else None, tree)
