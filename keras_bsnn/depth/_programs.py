"""What layers compute, as text: whether they are equal, whatever they hold."""

import keras

from keras_bsnn import _backend
from keras_bsnn.depth import _equality

UNKNOWN = 2  # for an axis of unknown length


def program(layer, args, kwargs):
    """What a layer does, which is equal for layers that do the same.

    Layers may hold what they do not compute with, such as their place in a model, so
    that their fingerprints differ.

    Args:
        layer: a built layer.
        args: its arguments by position, with a `keras.KerasTensor` for each tensor.
        kwargs: those by name.

    Returns:
        A string, or `None` if that cannot be found out.
    """
    variables = layer.variables
    given = [x for x in keras.tree.flatten((args, kwargs)) if _is_tensor(x)]
    specs = [*map(_known, variables)], [*map(_known, given)]
    kinds = [str(_equality.fingerprint(variable)) for variable in variables]
    try:
        texts = [
            _backend.program(_function(layer, args, kwargs, training), *specs)
            for training in (False, True)
        ]
    except Exception:  # of code that is not ours: it then equals no other
        return None
    return None if None in texts else str((type(layer), kinds, texts))


def _function(layer, args, kwargs, training):
    """A layer as a function of the values of its variables and of its tensors."""
    variables = layer.variables
    given = {"training": training} if layer._call_has_training_arg else {}

    def function(values, tensors):
        left = iter(tensors)
        own_args, own_kwargs = keras.tree.map_structure(
            lambda x: next(left) if _is_tensor(x) else x, (args, kwargs)
        )
        state = zip(variables, values, strict=True)
        with keras.StatelessScope(state, collect_losses=True) as scope:
            outputs = layer(*own_args, **{**own_kwargs, **given})
        after = [*map(scope.get_current_value, variables)]
        return outputs, scope.losses, after

    return function


def _is_tensor(x):
    return isinstance(x, keras.KerasTensor)


def _known(x):
    """A tensor without values of a known shape."""
    shape = tuple(UNKNOWN if size is None else size for size in x.shape)
    return keras.KerasTensor(shape, keras.backend.standardize_dtype(x.dtype))
