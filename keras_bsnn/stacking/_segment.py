"""A part of a model as a layer."""

from typing import Any, NamedTuple

import keras

from keras_bsnn import _backend
from keras_bsnn._graph import map_sources


class Slot(NamedTuple):
    """A tensor that a part of a model uses.

    Attributes:
        group: which tensors it is among: -2 for the context of the part, -1 for what
            enters it, and else the place, in the part, of the call that returned it.
        which: its place among them.
    """

    group: int
    which: int


class Segment(keras.layers.Layer):
    """Calls of layers, one after the other, as one layer.

    Args:
        operations: list of what is called.
        recipe: list of the arguments of each call, a pair of `args` and `kwargs` with a
            `Slot` in the place of each tensor.
        returned: list of the `Slot` of each tensor that the next such layer takes.
        tapped: list of the `Slot` of each tensor that it returns besides these.
        dtype: that of the tensors that enter, which it leaves as they are.
    """

    def __init__(
        self,
        operations: list,
        recipe: list,
        returned: list,
        tapped: list,
        dtype: str,
    ):
        super().__init__(dtype=dtype, autocast=False)
        self.operations = operations
        self.recipe = recipe
        self.returned = returned
        self.tapped = tapped
        self.built = True

    def call(self, inputs: Any, *context: Any) -> Any:
        """Makes the calls, with what enters and with what does not change."""
        groups = {-2: context, -1: keras.tree.flatten(inputs)}

        def tensor(slot):
            return groups[slot.group][slot.which]

        for place, operation in enumerate(self.operations):
            args, kwargs = map_sources(tensor, self.recipe[place], Slot)
            groups[place] = keras.tree.flatten(operation(*args, **kwargs))
        found = tuple(map(tensor, self.returned))
        result = found if len(found) > 1 else found[0]
        return (result, tuple(map(tensor, self.tapped))) if self.tapped else result


def segments(run, calls):
    """The parts of a run as layers.

    Args:
        run: a `_runs.Run`.
        calls: list of all `_graph.Call` of the model.
    """
    carries = [calls[run.start + i].returned[which] for i, which in run.carries]
    dtype: Any = next((x.dtype for x in carries if _backend.is_float(x)), None)
    second = run.start + run.period

    def slot(source):
        if source in run.context:
            return Slot(-2, run.context.index(source))
        if source.call >= second:
            return Slot(source.call - second, source.which)
        carry = source._replace(call=source.call - run.start)
        return Slot(-1, run.carries.index(carry))

    recipe = [
        map_sources(slot, (call.args, call.kwargs))
        for call in calls[second : second + run.period]
    ]
    slots: Any = [[Slot(*x) for x in group] for group in (run.carries, run.taps)]
    parts = [[call.operation for call in calls[i : i + run.period]] for i in run.starts]
    return [Segment(each, recipe, slots[0], slots[1], dtype) for each in parts]
