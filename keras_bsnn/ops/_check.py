"""Checks of arguments: errors say which one is wrong, what it must be and what came.

Each check returns the value as plain Python, so that a NumPy number is accepted, and a
configuration that holds the result can be written as JSON.
"""

import difflib
import reprlib
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

import numpy as np

LONGEST = 400  # characters quoted of another error
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80
SHORT.maxlevel = 2


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether the value is an integer of Python or NumPy, and not a boolean."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def integer(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """The value as an `int`; `ValueError` unless it is an integer in the range."""
    if not is_integer(value) or value < low or (high is not None and value > high):
        limit = f">= {low}" if high is None else f"from {low} to {high}"
        raise refusal(name, f"an integer {limit}", value)
    return int(value)


def number(
    name: str,
    value: Any,
    kind: str = "a finite number",
    fits: Callable[[Any], bool] = lambda value: True,
) -> float:
    """The value as an `int` or `float`; `ValueError` unless it is finite and `fits`."""
    plain = value.item() if isinstance(value, (np.integer, np.floating)) else value
    is_number = isinstance(plain, (int, float)) and not isinstance(plain, bool)
    if not is_number or not abs(plain) <= sys.float_info.max or not fits(plain):
        raise refusal(name, kind, value)
    return plain


def boolean(name: str, value: Any) -> bool:
    """The value as a `bool`; `ValueError` unless it equals one (`"no"` does not)."""
    if not isinstance(value, (bool, int, np.bool_)) or value not in (0, 1):
        raise refusal(name, "True or False", value)
    return bool(value)


def seed(name: str, value: Any) -> int | None:
    """The value as an `int`, or `None`; `ValueError` unless NumPy and Keras take it."""
    if value is None:
        return None
    if not is_integer(value) or not 0 <= value < 2**32:
        raise refusal(name, "an integer in [0, 2**32), or None", value)
    return int(value)


def interpreted(
    name: str,
    kind: str,
    interpret: Callable[[Any], Any],
    value: Any,
    known: Iterable[str] = (),
) -> Any:
    """`interpret(value)`; any error becomes the `ValueError` of `refusal`."""
    try:
        return interpret(value)
    except Exception as error:  # nobody knows what a malformed value may raise
        raise refusal(name, kind, value, error, known) from error


def deserialized(
    config: dict[str, Any], name: str, kind: str, deserialize: Callable[[Any], Any]
) -> dict[str, Any]:
    """The config, with the entry `name` deserialized if it is present."""
    if name not in config:
        return config
    return {**config, name: interpreted(name, kind, deserialize, config[name])}


def refusal(
    name: str,
    kind: str,
    value: Any,
    because: Exception | None = None,
    known: Iterable[str] = (),
) -> ValueError:
    """The error for an argument that is not what it must be.

    Args:
        name: The argument.
        kind: What it must be.
        value: What came.
        because: The error that says why not.
        known: The names that it may be, of which the nearest is suggested.
    """
    reason = "" if because is None else f" {textwrap.shorten(cause(because), LONGEST)}"
    return ValueError(
        f"`{name}` must be {kind}. Received: {name}={_shown(value)}"
        f"{_suggestion(value, known)}{reason}"
    )


def _suggestion(value, known):
    if not isinstance(value, str):
        return ""
    written = value.lower().replace("-", "_").replace(" ", "_")
    nearest = difflib.get_close_matches(written, known, n=1)
    return f". Did you mean {nearest[0]!r}?" if nearest else ""


def cause(error: Exception) -> str:
    """Message of the innermost exception, where Keras nests one in another."""
    return str(error).rpartition("Exception encountered: ")[2]


def _shown(value: Any) -> str:
    try:
        return SHORT.repr(value)
    except Exception:  # such as an integer with too many digits to print
        return f"an object of the type {type(value).__name__}"
