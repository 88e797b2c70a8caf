"""Compares the Jacobian of layers with additive filters with what they guarantee."""

from typing import NamedTuple

import keras
import numpy as np

from keras_bsnn._public import public
from keras_bsnn.layers import DepthStack, ROAFDense
from keras_bsnn.ops import isometry, roaf


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
