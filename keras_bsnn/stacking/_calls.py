"""A functional model as a list of calls: what is called in turn, and with what."""

from typing import Any, NamedTuple

import keras

from keras_bsnn import _model


class Source(NamedTuple):
    """Where a tensor comes from.

    Attributes:
        call: the place of the call that returns it, or -1 for an input of the model.
        which: which tensor of those that it returns, or which input.
    """

    call: int
    which: int


class Call(NamedTuple):
    """A call of an operation, which is a layer or a function.

    Attributes:
        operation: what is called.
        args, kwargs: its arguments, with a `Source` in the place of each tensor.
        returned: list of the tensors that it returns, of `keras.KerasTensor`.
    """

    operation: Any
    args: tuple
    kwargs: dict
    returned: Any

    def sources(self):
        """Of the tensors that it is called with, in their order."""
        found: list[Source] = []
        map_sources(found.append, (self.args, self.kwargs))
        return found


def calls(model):
    """The calls of a functional model in an order in which they can be made.

    Returns:
        List of `Call`, and a list of the `Source` of each output of the model.
    """
    nodes = [node for node in _model.nodes(model) if not node.is_input]
    source_of = {id(x): Source(-1, i) for i, x in enumerate(model.inputs)}
    for place, node in enumerate(nodes):
        for i, x in enumerate(node.output_tensors):
            source_of[id(x)] = Source(place, i)

    def source(x):
        return source_of[id(x)] if isinstance(x, keras.KerasTensor) else x

    found = []
    for node in nodes:
        args, kwargs = keras.tree.map_structure(
            source, (node.arguments.args, node.arguments.kwargs)
        )
        found.append(Call(node.operation, args, kwargs, node.outputs))
    return found, [source_of[id(x)] for x in model.outputs]


def map_sources(function, tree, kind=Source):
    """The structure with the result of a function for each `Source`, or other kind."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {k: map_sources(function, value, kind) for k, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_sources(function, value, kind) for value in tree)
    return tree
