"""What became a loop, and what did not and why, in words."""

import collections
import itertools

import keras

from keras_bsnn.depth import _equality
from keras_bsnn.stacking._kinds import signature


def report(loops):
    """Yields a line for each loop, and one for each pair of like layers in none.

    Args:
        loops: a `Loops`.
    """
    lines = [*_of_loops(loops), *_of_others(loops)]
    yield from lines or ["No layers became a loop: no two are equal."]


def _of_loops(loops):
    for run in loops.runs.values():
        calls = loops.graph.calls[run.start : run.stop]
        what = f"{calls[0].operation.name} to {calls[-1].operation.name}"
        period = f" of {run.period} calls each" if run.period > 1 else ""
        yield f"{what}: {run.parts} equal parts{period} became a loop."
    for place, called in loops.called.items():
        if isinstance(called, type(loops)):
            name = loops.graph.calls[place].operation.name
            yield from (f"{name}/{line}" for line in report(called))


def _of_others(loops):
    """Why layers of one class that are in no loop are in none, two after the other."""
    for name, reason in loops.kept.items():
        yield f"{name} is called as it is: {reason}."
    for places in _alike(loops):
        for first, other in itertools.pairwise(places):
            names = [loops.graph.calls[i].operation.name for i in (first, other)]
            if reason := _reason(loops, first, other):
                yield f"{names[0]} and {names[1]} are no loop: {reason}."


def _alike(loops):
    """The places of layers that hold layers or weights, by class, outside of loops."""
    found = collections.defaultdict(list)
    for place, called in loops.called.items():
        is_layer = isinstance(called, keras.layers.Layer) and place not in loops.runs
        if is_layer and called.variables:
            found[type(called)].append(place)
    return found.values()


def _reason(loops, first, other):
    """Why two layers of a class are no loop; simple ones need not be alike."""
    calls = [loops.graph.calls[i] for i in (first, other)]
    one, two = (call.operation for call in calls)
    shapes = [[tuple(v.shape) for v in layer.variables] for layer in (one, two)]
    if shapes[0] != shapes[1]:
        is_simple = not one._layers
        found = f"their weights are of the shapes {shapes[0]} and {shapes[1]}"
        return None if is_simple else found
    if one is two:
        return "they are one layer"
    if any(id(v) in loops.shared for v in (*one.variables, *two.variables)):
        return "one has weights that are used elsewhere, too"
    if signature(calls[0]) != signature(calls[1]):
        return "they are called with other arguments, or other shapes"
    if loops.kinds[first] != loops.kinds[other]:
        found = map(_equality.fingerprint, (one, two))
        return f"they differ in {_equality.difference(*found)}"
    return "what is between them is not what is before and after them"
