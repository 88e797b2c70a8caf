"""The module of the backend that runs."""

import importlib

import keras

NAME = keras.backend.backend()

if NAME not in ("tensorflow", "jax", "torch"):
    raise ImportError(
        "keras_bsnn runs where KERAS_BACKEND is tensorflow, jax or torch. "
        f"Received: {NAME!r}"
    )
implementation = importlib.import_module(f"keras_bsnn._backend._{NAME}")
