"""Checks of arguments: which one is wrong, what it must be, and what came."""

import reprlib
import sys
import textwrap

import numpy as np

LONGEST = 400  # characters of what is told of another error
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 80
SHORT.maxlevel = 2


def integer(name, value, low=1, high=None):
    """Raises `ValueError` unless the value is an integer in a range."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        limit = f">= {low}" if high is None else f"from {low} to {high}"
        raise refusal(name, f"an integer {limit}", value)


def number(name, value, kind="a finite number", fits=lambda value: True):
    """Raises `ValueError` unless the value is a float, or fits in one, and `fits`."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max or not fits(value):
        raise refusal(name, kind, value)


def boolean(name, value):
    """Raises `ValueError` for what is only taken for true or false, as `"no"` is."""
    if not isinstance(value, (bool, int, np.bool_)) or value not in (0, 1):
        raise refusal(name, "True or False", value)


def seed(name, value):
    """Raises `ValueError` unless it is `None` or a seed that NumPy and Keras take."""
    if value is not None:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if not is_integer or not 0 <= value < 2**32:
            raise refusal(name, "an integer in [0, 2**32), or None", value)


def interpreted(name, kind, interpret, value):
    """`interpret(value)`; whatever it raises becomes a `ValueError` of this form."""
    try:
        return interpret(value)
    except Exception as error:  # what is garbage may raise anything
        raise refusal(name, kind, value, because=error) from error


def deserialized(config, name, kind, deserialize):
    """The config with one entry deserialized, if it has it."""
    if name not in config:
        return config
    return {**config, name: interpreted(name, kind, deserialize, config[name])}


def refusal(name, kind, value, because=None):
    """The error that says so."""
    reason = "" if because is None else f" {textwrap.shorten(cause(because), LONGEST)}"
    return ValueError(
        f"`{name}` must be {kind}. Received: {name}={_shown(value)}{reason}"
    )


def cause(error):
    """What the innermost says of the errors that Keras tells within one another."""
    return str(error).rpartition("Exception encountered: ")[2]


def _shown(value):
    try:
        return SHORT.repr(value)
    except Exception:  # as of an integer of many digits
        return f"an object of the type {type(value).__name__}"
