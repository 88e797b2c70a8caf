"""Values of weights, and of the state of optimizers, between a model and its loops."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_bsnn import _model
from keras_bsnn._graph import Graph
from keras_bsnn.layers import DepthStack
from keras_bsnn.stacking._loops import Loops
from keras_bsnn.stacking._opened import opened
from keras_bsnn.stacking._segment import segments


class Pair(NamedTuple):
    """A variable of a model with loops, and what it is without.

    Attributes:
        stacked: the variable, or a slot of an optimizer.
        plain: tuple of the variables along the first axis of it; one variable if that
            is no axis of layers.
    """

    stacked: keras.Variable
    plain: tuple | keras.Variable

    def copy(self, to_plain):
        """Copies values; to the variables of layers, or from them."""
        if isinstance(self.plain, tuple):
            if to_plain:
                whole = np.array(ops.convert_to_numpy(self.stacked))
                for variable, value in zip(self.plain, whole, strict=True):
                    variable.assign(value)
            else:
                values = [ops.convert_to_numpy(variable) for variable in self.plain]
                self.stacked.assign(np.stack(values))
        elif self.plain is not self.stacked:
            pair = (self.stacked, self.plain)
            source, target = pair if to_plain else reversed(pair)
            target.assign(np.array(ops.convert_to_numpy(source)))


def pairs(loops, graph):
    """Yields each variable of the loops of a model with those of one without.

    Args:
        loops: the `Loops` of a model.
        graph: the `Graph` of a model like that, in the same order.
    """
    for place, called in loops.called.items():
        call = graph.calls[place]
        if isinstance(called, DepthStack):
            layers = segments(loops.runs[place], graph.calls)
            yield from (Pair(*pair) for pair in called.variables_with(layers))
        elif isinstance(called, Loops):
            model = _model_within(graph, place)
            yield from pairs(called, Graph(model, called.graph.is_late))
        elif isinstance(called, keras.layers.Layer):
            of_layer = zip(called.variables, call.operation.variables, strict=True)
            yield from (Pair(*pair) for pair in of_layer)


def _model_within(graph, place):
    """A model within another, or a layer that is a loop, as a functional model."""
    operation = graph.calls[place].operation
    if _model.is_functional(operation):
        return operation
    return opened(*graph.arguments(place))


def of_optimizers(stacked, plain, of_weights):
    """Yields each variable of two optimizers.

    Args:
        stacked: the optimizer of a model with loops, which is built.
        plain: that of the model without.
        of_weights: list of `Pair`, those of the models.

    Raises:
        ValueError: they are of different kinds, or one of their variables is neither
            one number nor of the shape of a weight.
    """
    ours, theirs = _slots(stacked), _slots(plain)
    if type(stacked) is not type(plain) or ours.keys() != theirs.keys():
        raise ValueError(
            "The optimizers of `source` and `target` must be of one kind and with "
            f"equal settings. Received: {stacked.name!r} and {plain.name!r}"
        )
    for name, slots in ours.items():
        for pair in of_weights:
            if id(pair.stacked) in slots:
                yield Pair(slots[id(pair.stacked)], _plain_slots(pair, theirs[name]))
    for ours_alone, theirs_alone in zip(_alone(stacked), _alone(plain), strict=True):
        yield Pair(ours_alone, theirs_alone)


def _plain_slots(pair, slots):
    if isinstance(pair.plain, tuple):
        return tuple(slots[id(variable)] for variable in pair.plain)
    return slots[id(pair.plain)]


def _slots(optimizer):
    """A dict from names to dicts from the id of a weight to its slot."""
    weights = optimizer._trainable_variables
    found = {}
    for name, value in vars(optimizer).items():
        is_one_each = isinstance(value, list) and len(value) == len(weights)
        if not is_one_each or value is weights:
            continue
        pairs = zip(weights, value, strict=True)
        slots = {
            id(weight): slot
            for weight, slot in pairs
            if isinstance(slot, keras.Variable) and slot.shape == weight.shape
        }
        if slots:
            found[name] = slots
    return found


def _alone(optimizer):
    """The variables of an optimizer that belong to no weight, such as its rate."""
    slots = {id(x) for group in _slots(optimizer).values() for x in group.values()}
    found = [x for x in optimizer.variables if id(x) not in slots]
    for variable in found:
        if len(variable.shape):
            raise ValueError(
                "What an optimizer keeps must be one number, or of the shape of a "
                f"weight, to be copied. Received: {variable.path!r} of shape "
                f"{tuple(variable.shape)}, of {optimizer.name!r}"
            )
    return found
