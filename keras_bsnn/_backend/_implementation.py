"""The module of the backend that runs."""

import importlib

import keras

NAME = keras.backend.backend()

implementation = importlib.import_module(
    f"keras_bsnn._backend._{NAME if NAME in ('tensorflow', 'jax') else 'other'}"
)
