"""The one decorator of public symbols."""

import sys

import keras


def public(symbol):
    """Adds `symbol` to its module's `__all__` and registers it if it can be saved."""
    module = sys.modules[symbol.__module__]
    module.__dict__.setdefault("__all__", []).append(symbol.__name__)
    if hasattr(symbol, "get_config"):
        keras.saving.register_keras_serializable(package="keras_bsnn")(symbol)
    return symbol
