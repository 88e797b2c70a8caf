"""What became a loop, and what did not and why, in words."""

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
    """Yields why layers of one class, of which one follows the other, are no loop."""
    for name, reason in loops.kept.items():
        yield f"{name} is called as it is: {reason}."
    run_of = {i: run for run in loops.runs.values() for i in range(run.start, run.stop)}
    for first, other in _followers(loops.graph.calls):
        names = [loops.graph.calls[i].operation.name for i in (first, other)]
        is_loop = first in run_of and run_of[first] is run_of.get(other)
        if not is_loop and (reason := _reason(loops, first, other)):
            yield f"{names[0]} and {names[1]} are not in one loop: {reason}."


def _followers(calls):
    """Yields the places of two layers of a class: a layer, and the next that is called.

    Of simple layers, which hold no others, those alone of which the second takes what
    the first returns.
    """
    last: dict[type, int] = {}
    for place, call in enumerate(calls):
        if not call.variables():
            continue
        first = last.get(type(call.operation))
        last[type(call.operation)] = place
        takes = any(source.call == first for source in call.sources())
        if first is not None and (call.operation._layers or takes):
            yield first, place


def _reason(loops, first, other):
    """Why two layers of a class are no loop; simple ones may have other shapes."""
    calls = [loops.graph.calls[i] for i in (first, other)]
    one, two = (call.operation for call in calls)
    shapes = [[tuple(v.shape) for v in layer.variables] for layer in (one, two)]
    if shapes[0] != shapes[1]:
        return "their weights are of other shapes" if one._layers else None
    if one is two:
        return "they are one layer, which is called elsewhere, too"
    if any(id(v) in loops.shared for v in (*one.variables, *two.variables)):
        return "one has weights that are used elsewhere, too"
    if signature(calls[0]) != signature(calls[1]):
        return "they are called with other arguments, or other shapes"
    if loops.kinds[first] != loops.kinds[other]:
        found = map(_equality.fingerprint, (one, two))
        return f"they differ in {_equality.difference(*found)}"
    return "the calls between them are not as those around them"
