"""Measures how signals and gradients pass through a model."""

from typing import NamedTuple

import keras
import numpy as np

from keras_bsnn._public import public
from keras_bsnn.ops import _backend


class SignalNorms(NamedTuple):
    """Per-layer norms, from the input to the output.

    Attributes:
        layers: names of the layers.
        forward: root mean square of the entries of each layer's output.
        gradient: norm of the gradient of the loss with respect to that output.
    """

    layers: list
    forward: np.ndarray
    gradient: np.ndarray


@public
def signal_norms(model, x, y):
    """Forward and gradient norm at the output of each layer with weights.

    Args:
        model: a compiled and built `keras.Sequential`.
        x: inputs `(batch, ...)`.
        y: targets `(batch, ...)`.

    Returns:
        `SignalNorms`. The cost is two forward passes and a backward pass, not compiled.

    Raises:
        ValueError: `model` is not a compiled `keras.Sequential`.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=32)
    >>> model.compile(loss="mse")
    >>> norms = keras_bsnn.diagnostics.signal_norms(
    ...     model, np.random.randn(16, 64).astype("float32"), np.zeros((16, 10)))
    >>> len(norms.forward)
    12
    """
    if not isinstance(model, keras.Sequential) or not model.compiled:
        raise ValueError(
            "`model` must be a keras.Sequential, compiled with a loss. "
            f"Received: {model!r}"
        )
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    outputs = _outputs(model.layers, x)

    def loss(probes):
        return model.compute_loss(y=y, y_pred=_outputs(model.layers, x, probes)[-1])

    gradients = _backend.gradients(loss, [keras.ops.zeros_like(h) for h in outputs])
    measured = [i for i, layer in enumerate(model.layers) if layer.weights]
    return SignalNorms(
        [model.layers[i].name for i in measured],
        np.array([_root_mean_square(outputs[i]) for i in measured]),
        np.array([_norm(gradients[i]) for i in measured]),
    )


def _outputs(layers, x, probes=None):
    """Each layer's output; a probe is added to it, so as to be differentiated by."""
    outputs = []
    for i, layer in enumerate(layers):
        x = layer(x, training=False)
        x = x if probes is None else x + probes[i]
        outputs.append(x)
    return outputs


def _norm(x):
    return np.linalg.norm(keras.ops.convert_to_numpy(x).astype(np.float64))


def _root_mean_square(x):
    return _norm(x) / np.sqrt(np.prod(x.shape))
