"""Gradients of functions of structures, from those of functions of tensors.

The gradient of a structure is one like it, with `None` in the place of tensors that are
not of floating point.
"""

import keras

from keras_bsnn._backend._implementation import implementation
from keras_bsnn._backend._trees import flatten, is_float, map_tensors, pack_like


def vjp(function, *arguments):
    """Evaluates a function, and returns its vector-Jacobian product.

    Args:
        function: callable of structures of tensors that returns one.
        arguments: structures of tensors.

    Returns:
        The outputs, and a callable that maps their gradient, a structure like the
        outputs, to a tuple of the gradients of the arguments.
    """
    return _vjp(function, arguments, lambda outputs: outputs)


def value_and_gradients(function, arguments):
    """Evaluates a scalar function, and differentiates it.

    Args:
        function: callable of a list of tensors that returns a scalar tensor and a
            structure of further tensors.
        arguments: list of tensors.

    Returns:
        The scalar, the further tensors, and a list of gradients of the scalar.
    """
    call = _vjp(lambda *x: function([*x]), arguments, lambda outputs: outputs[0])
    (value, more), pull = call
    return value, more, [*pull(keras.ops.ones_like(value))]


def gradients(function, arguments):
    """Gradients of a scalar `function(arguments)` with respect to each argument.

    Args:
        function: callable of a list of tensors that returns a scalar tensor.
        arguments: list of tensors.

    Returns:
        List of tensors, one gradient for each argument.
    """
    return value_and_gradients(lambda tensors: (function(tensors), ()), arguments)[2]


def value_and_slope(function, x):
    """A pointwise function of a tensor, and its derivative at each entry."""
    y, pull = vjp(function, x)
    (slope,) = pull(keras.ops.ones_like(y))
    return y, slope


def _vjp(function, arguments, selected):
    """`vjp` of a selected part of the outputs."""
    tensors = flatten(arguments)

    def of_floats(*floats):
        outputs = function(*pack_like(arguments, _merged(tensors, floats)))
        return tuple(filter(is_float, flatten(selected(outputs)))), outputs

    floats = [x for x in tensors if is_float(x)]
    outputs, pull_floats = implementation.vjp(of_floats, *floats)

    def pull(gradient):
        found = iter(pull_floats(_of_floats(selected(outputs), gradient)))
        of_all = [next(found) if is_float(x) else None for x in tensors]
        return pack_like(tuple(arguments), of_all)

    return outputs, pull


def _merged(tensors, floats):
    """`tensors`, with others in the place of those of floating point."""
    floats = iter(floats)
    return [next(floats) if is_float(x) else x for x in tensors]


def _of_floats(outputs, gradient):
    """The gradients of outputs of floating point, where `None` stands for zero."""
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(gradient), strict=True)
    return tuple(
        keras.ops.zeros_like(y) if g is None else g
        for y, g in pairs
        if y is not None and is_float(y)
    )


def with_gradient(function, forward, backward):
    """A function of structures of tensors whose gradient is given.

    Args:
        function: callable of structures that returns one.
        forward: the same, but it returns `(outputs, residuals)`.
        backward: callable of the residuals and of the gradient of the outputs. It
            returns a tuple of the gradients of the arguments; `None` in the place of
            a gradient, or of a part of it, stands for zero.

    Returns:
        A callable like `function`, which can be differentiated any number of times.
    """

    def differentiable(*arguments):
        structures = {}

        def flattened(name, tree):
            structures[name] = map_tensors(lambda _: True, tree)
            return tuple(flatten(tree))

        def flat_function(*tensors):
            outputs = function(*pack_like(arguments, tensors))
            return flattened("outputs", outputs)

        def flat_forward(*tensors):
            outputs, residuals = forward(*pack_like(arguments, tensors))
            return flattened("outputs", outputs), flattened("residuals", residuals)

        def flat_backward(residuals, gradient):
            found = backward(
                pack_like(structures["residuals"], residuals),
                pack_like(structures["outputs"], gradient),
            )
            pairs = zip(arguments, found, strict=True)
            return [g for pair in pairs for g in _of_argument(*pair)]

        call = implementation.with_gradient(flat_function, flat_forward, flat_backward)
        outputs = call(*flatten(arguments))
        return pack_like(structures["outputs"], outputs)

    return differentiable


def _of_argument(argument, gradient):
    """The gradient of each of its tensors, `None` for zero."""
    if gradient is None:
        return [None] * len(flatten(argument))
    pairs = zip(keras.tree.flatten(argument), keras.tree.flatten(gradient), strict=True)
    return [g for x, g in pairs if x is not None]
