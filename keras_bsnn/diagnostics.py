"""Measures how signals and gradients pass through a model."""

import warnings
from typing import NamedTuple

import keras
import numpy as np

from keras_bsnn._public import public
from keras_bsnn.layers import BatchNormDense, DepthStack, ROAFDense
from keras_bsnn.ops import _backend, isometry, roaf


class SignalNorms(NamedTuple):
    """Per-layer norms, from the input to the output.

    Attributes:
        layers: names of the layers; those in a `DepthStack` each have their own.
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
    if not model.built:
        model.build(x.shape)
    outputs = _outputs(model.layers, x)

    def loss(probes):
        return model.compute_loss(y=y, y_pred=_outputs(model.layers, x, probes)[-1][-1])

    gradients = _backend.gradients(loss, [keras.ops.zeros_like(h) for h in outputs])
    measured = [i for i, layer in enumerate(model.layers) if layer.weights]
    forward = [_norms(outputs[i]) / _root_of_size(outputs[i]) for i in measured]
    return SignalNorms(
        [name for i in measured for name in _names(model.layers[i])],
        np.concatenate(forward),
        np.concatenate([_norms(gradients[i]) for i in measured]),
    )


class JacobianCheck(NamedTuple):
    """Singular values of a Jacobian, and the bounds that they must respect.

    Attributes:
        low, high: the bounds.
        smallest, largest: of the singular values, over all samples.
    """

    low: float
    smallest: float
    largest: float
    high: float

    @property
    def holds(self):
        """Whether they do, but for rounding in float32."""
        slack = 1e-4 * self.high
        return self.low - slack <= self.smallest and self.largest <= self.high + slack


@public
def jacobian_bounds(layer, lipschitz=1.0):
    """Bounds of the singular values of the Jacobian of layers with additive filters.

    Args:
        layer: a built `ROAFDense`, or a `DepthStack` of it.
        lipschitz: largest slope of the activation: 1 for tanh and ReLU.

    Returns:
        The lower and the upper bound, from the norm of each kernel as it is.

    Raises:
        ValueError: `layer` is not as above.

    Source: `keras_bsnn.ops.roaf.jacobian_bounds`.

    Example:

    >>> import keras_bsnn
    >>> layer = keras_bsnn.layers.ROAFDense(8, 0.9, kernel_initializer="zeros")
    >>> layer.build((None, 8))
    >>> keras_bsnn.diagnostics.jacobian_bounds(layer)
    (0.9, 0.9)
    """
    block = layer.block if isinstance(layer, DepthStack) else layer
    if not isinstance(block, ROAFDense) or not layer.built:
        raise ValueError(
            "`layer` must be a built ROAFDense, or a built DepthStack of it. "
            f"Received: {layer!r}"
        )
    kernels = keras.ops.convert_to_numpy(layer.trainable_variables[0])
    kernels = kernels.reshape(-1, *kernels.shape[-2:])
    norms = np.linalg.norm(kernels, 2, axis=(-2, -1))
    return roaf.jacobian_bounds(block.alpha, lipschitz, norms, len(norms), block.beta)


@public
def check_jacobian(layer, x, lipschitz=1.0):
    """Compares the Jacobian of layers with additive filters with what they guarantee.

    Args:
        layer, lipschitz: as of `jacobian_bounds`.
        x: inputs of the layer, `(batch, units)`.

    Returns:
        `JacobianCheck`. The cost is a backward pass for each unit.

    Raises:
        ValueError: `layer` is not as `jacobian_bounds` takes it.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> block = keras_bsnn.layers.ROAFDense(8, alpha=0.99)
    >>> stack = keras_bsnn.layers.DepthStack(block, depth=100)
    >>> stack.build((None, 8))
    >>> keras_bsnn.diagnostics.check_jacobian(stack, np.ones((2, 8))).holds
    True
    """
    low, high = jacobian_bounds(layer, lipschitz)
    found = isometry.jacobian_singular_values(layer, x)
    return JacobianCheck(low, float(found.min()), float(found.max()), high)


@public
def check_batch(model, x):
    """Warns if a batch is such that batch normalization makes gradients explode.

    It does in many layers if fewer samples are linearly independent than there are
    units: in a small batch, or one in which samples repeat.

    Args:
        model: a built `keras.Sequential` with layers of `BatchNormDense`.
        x: a batch of inputs, `(batch, ...)`.

    Returns:
        Number of linearly independent samples where the first of these layers receives
        them, or `None` if there is no such layer without `shrinkage`.

    Raises:
        ValueError: `model` is not a built `keras.Sequential`.

    Example:

    >>> import keras_bsnn, numpy as np
    >>> model = keras_bsnn.models.batchnorm_mlp(
    ...     10, 4, shrinkage=0.0, input_shape=(8,))
    >>> keras_bsnn.diagnostics.check_batch(model, np.random.randn(32, 8))
    8
    """
    if not isinstance(model, keras.Sequential) or not model.built:
        raise ValueError(
            f"`model` must be a built keras.Sequential. Received: {model!r}"
        )
    x = keras.ops.cast(x, model.compute_dtype)
    for layer in model.layers:
        block = layer.block if isinstance(layer, DepthStack) else layer
        if isinstance(block, BatchNormDense) and block.shrinkage == 0:
            return _checked_rank(block, keras.ops.convert_to_numpy(x))
        x = layer(x, training=False)
    return None


def _checked_rank(layer, x):
    x = x.reshape(-1, x.shape[-1]).astype("float32")
    rank = int(np.linalg.matrix_rank(x))
    if rank < min(layer.units, x.shape[-1]):
        warnings.warn(
            f"{layer.name}: {rank} of the {len(x)} samples in the batch are linearly "
            f"independent, fewer than the width of {layer.units} units, so that "
            "gradients grow with depth. Take larger batches, or `shrinkage=0.9`.",
            stacklevel=3,
        )
    return rank


def _outputs(layers, x, probes=None):
    """The outputs of each layer, `(1, batch, ...)`, or of a stack, `(depth, ...)`.

    A probe is added to each, so as to be differentiated by.
    """
    outputs = []
    for i, layer in enumerate(layers):
        if isinstance(layer, DepthStack):
            zeros = keras.ops.zeros((layer.depth, *x.shape), layer.compute_dtype)
            h = layer.every_output(x, zeros if probes is None else probes[i])
        else:
            h = layer(x, training=False)[None]
            h = h if probes is None else h + probes[i]
        outputs.append(h)
        x = h[-1]
    return outputs


def _names(layer):
    if isinstance(layer, DepthStack):
        return [f"{layer.name}/{i}" for i in range(layer.depth)]
    return [layer.name]


def _norms(x):
    """The norm of each slice along the first axis."""
    x = keras.ops.convert_to_numpy(x).astype(np.float64)
    return np.linalg.norm(x.reshape(len(x), -1), axis=1)


def _root_of_size(x):
    return np.sqrt(np.prod(x.shape[1:]))
