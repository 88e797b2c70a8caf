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
        dict from names to arrays of times.
    """
    calls = {}
    for name, function in functions.items():
        _seconds(function, x, 1)  # compiles
        calls[name] = 1 + int(SECONDS / _seconds(function, x, 3))
    turns = [
        [_seconds(function, x, calls[name]) for name, function in functions.items()]
        for _ in range(rounds)
    ]
    return dict(zip(functions, 1e6 / len(x) * np.transpose(turns), strict=True))


def _seconds(function, x, calls):
    """Of one call, among several in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        y = function(x)
    np.asarray(y)
    return (time.perf_counter() - start) / calls
