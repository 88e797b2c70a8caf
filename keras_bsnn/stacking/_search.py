"""The runs of a model that save the most."""

import numpy as np

from keras_bsnn.depth._repeated import is_state
from keras_bsnn.stacking._runs import Run, Runs


def runs(graph, kinds, least):
    """The runs of a graph that save the most calls, none of which overlap.

    Args:
        graph: a `_graph.Graph`.
        kinds: as for `_runs.Runs`.
        least: the least number of parts.
    """
    found: list[Run] = []
    every = Runs(graph, kinds)
    for period in range(1, len(kinds) // 2 + 1):
        found += _of_period(every, period, least, found)
    found.sort(key=lambda run: (-run.period * (run.parts - 1), run.period, run.start))
    chosen: list[Run] = []
    for run in found:
        if all(run.stop <= other.start or other.stop <= run.start for other in chosen):
            chosen.append(run)
    return sorted(chosen)


def _of_period(every, period, least, shorter):
    """The runs of a period; where one of a shorter period is, it saves more."""
    found = []
    for start, stop in _repeated(every.kinds, period):
        while start + 2 * period <= stop:
            inside = [r.stop for r in shorter if r.start <= start < r.stop - period]
            if inside and max(inside) >= stop:
                break
            run = every.run(start, period, least)
            if run and _can_be_a_loop(run, every.graph):
                found.append(run)
            start = run.stop if run else start + 1
    return found


def _repeated(kinds, period):
    """Yields the stretches of calls, each of which is like that a period later."""
    kinds = np.asarray(kinds)
    is_same = np.concatenate([[False], kinds[:-period] == kinds[period:], [False]])
    starts, stops = np.flatnonzero(is_same[1:] != is_same[:-1]).reshape(-1, 2).T
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if stop - start >= period:
            yield start, stop + period


def _can_be_a_loop(run, graph):
    """Whether its parts have weights, of their own or all of them the same ones."""
    part = graph.calls[run.start : run.start + run.period]
    used = {id(v): v for call in part for v in call.variables()}
    shared = used.keys() & graph.shared
    if not shared:
        return bool(used)
    # A layer that is called again sees what it changed, such as moving statistics.
    is_changed = any(
        not v.trainable and not is_state(v)
        for call in part
        for v in call.variables()
        if call.operation.trainable
    )
    return shared == used.keys() and not is_changed
