"""Keras layers for networks of any depth."""

import keras_bsnn._requirements  # noqa: F401  (before all that needs them)
from keras_bsnn import (
    activations,
    callbacks,
    constraints,
    datasets,
    depth,
    diagnostics,
    export,
    initializers,
    layers,
    manifolds,
    models,
    ops,
    optimizers,
    plots,
    recalibration,
    shaping,
    stacking,
)
from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.version import __version__

__all__ = [
    "KerasBSNNWarning",
    "__version__",
    "activations",
    "callbacks",
    "constraints",
    "datasets",
    "depth",
    "diagnostics",
    "export",
    "initializers",
    "layers",
    "manifolds",
    "models",
    "ops",
    "optimizers",
    "plots",
    "recalibration",
    "shaping",
    "stacking",
]
