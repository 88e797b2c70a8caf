"""A functional model as a list of calls: what is called in turn, and with what."""

import collections
import functools
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

    def variables(self):
        """Those of a layer; a function has none."""
        return getattr(self.operation, "variables", [])

    def uses(self):
        """All variables that it computes with, also those among its arguments."""
        given = keras.tree.flatten((self.args, self.kwargs))
        return [*self.variables(), *(x for x in given if isinstance(x, keras.Variable))]


class Graph:
    """The calls of a functional model, in an order in which they can be made.

    Args:
        model: a functional model, or a Sequential that is built.
        is_late: whether a call stands right before the first that needs it, so that
            the layers of a chain follow one another; or as early as it can be made.

    Attributes:
        inputs: list of the tensors that enter.
        calls: list of `Call`.
        outputs: list of the `Source` of each output.
    """

    def __init__(self, model, is_late=False):
        nodes = [node for node in _model.nodes(model) if not node.is_input]
        nodes = _as_late_as_needed(nodes, model.outputs) if is_late else nodes
        self.is_late = is_late
        self.inputs = model.inputs
        source_of = {id(x): Source(-1, i) for i, x in enumerate(self.inputs)}
        for place, node in enumerate(nodes):
            for i, x in enumerate(node.output_tensors):
                source_of[id(x)] = Source(place, i)

        def source(x):
            return source_of[id(x)] if isinstance(x, keras.KerasTensor) else x

        self.calls = []
        for node in nodes:
            given = node.arguments.args, node.arguments.kwargs
            args, kwargs = keras.tree.map_structure(source, given)
            self.calls.append(Call(node.operation, args, kwargs, node.outputs))
        self.outputs = [source_of[id(x)] for x in model.outputs]

    def order(self):
        """The calls in turn, by the ids of what they return."""
        return [[*map(id, call.returned)] for call in self.calls]

    @functools.cached_property
    def users(self):
        """A dict from the ids of variables to the operations that are called with it.

        An operation is in the list as many times as it is called.
        """
        found = collections.defaultdict(list)
        for call in self.calls:
            for i in {id(v) for v in call.uses()}:
                found[i].append(call.operation)
        return found

    @functools.cached_property
    def shared(self):
        """The set of the ids of variables that more than one call uses."""
        return frozenset(i for i, calls in self.users.items() if len(calls) > 1)

    def used_by_others(self, operation):
        """The set of the ids of variables that other operations use."""
        return frozenset(
            i
            for i, calls in self.users.items()
            if any(x is not operation for x in calls)
        )

    def arguments(self, place):
        """What is called at a place, and its arguments by position and by name."""
        call = self.calls[place]
        return call.operation, *map_sources(self.tensor, (call.args, call.kwargs))

    def tensor(self, source):
        """The tensor that comes from there."""
        if source.call < 0:
            return self.inputs[source.which]
        return self.calls[source.call].returned[source.which]


def _as_late_as_needed(nodes, outputs):
    """The nodes in the order in which what needs them asks for them."""
    maker = {id(x): node for node in nodes for x in node.output_tensors}
    found: dict[int, Any] = {}
    ends = [maker[id(x)] for x in outputs if id(x) in maker]
    path = [*reversed(nodes), *reversed(ends)]
    while path:
        needed = [maker.get(id(x)) for x in path[-1].input_tensors]
        missing = [node for node in needed if node and id(node) not in found]
        if missing:
            path.extend(reversed(missing))
        else:
            node = path.pop()
            found.setdefault(id(node), node)
    return [*found.values()]


def map_sources(function, tree, kind=Source):
    """The structure with the result of a function for each `Source`, or other kind."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {k: map_sources(function, value, kind) for k, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_sources(function, value, kind) for value in tree)
    return tree
