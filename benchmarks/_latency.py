"""Times functions that predict, in turn."""

import time

import numpy as np

SECONDS = 0.2  # of calls in a row, at least


def times_per_sample(functions, x, rounds):
    """Microseconds per sample, in rounds in which each function has its turn.

    Args:
        functions: dict from names to functions of `x`.
        x: a batch; what a function returns is turned into a numpy array.
        rounds: number of times of each.

    Returns:
        dict from names to lists of times.
    """
    times = {name: [] for name in functions}
    calls = {name: _calls_in_a_row(function, x) for name, function in functions.items()}
    for _ in range(rounds):
        for name, function in functions.items():
            seconds = _seconds(function, x, calls[name])
            times[name].append(1e6 * seconds / len(x))
    return times


def _calls_in_a_row(function, x):
    _seconds(function, x, 1)  # compiles
    return 1 + int(SECONDS / _seconds(function, x, 3))


def _seconds(function, x, calls):
    """Of one call, among several in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        y = function(x)
    np.asarray(y)
    return (time.perf_counter() - start) / calls


def significant(value):
    return float(f"{value:.3g}")
