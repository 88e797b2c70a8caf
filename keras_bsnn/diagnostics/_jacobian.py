"""Checks the Jacobian of layers with additive filters against its bounds."""

from typing import NamedTuple

import keras
import numpy as np

from keras_bsnn._parts import parts
from keras_bsnn._types import Tensor
from keras_bsnn.layers import ROAFDense
from keras_bsnn.ops import isometry, roaf


class JacobianCheck(NamedTuple):
    """The extreme singular values of a Jacobian, and their bounds.

    Attributes:
        low: The lower bound.
        smallest: The smallest singular value over all samples.
        largest: The largest singular value over all samples.
        high: The upper bound.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.diagnostics.JacobianCheck(0.9, 0.95, 1.0, 1.1).holds
    True
    """

    low: float
    smallest: float
    largest: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the bounds hold, up to rounding in float32."""
        slack = 1e-4 * self.high
        return self.low - slack <= self.smallest and self.largest <= self.high + slack


def jacobian_bounds(
    layer: keras.layers.Layer, lipschitz: float = 1.0
) -> tuple[float, float]:
    """Returns bounds of the singular values of the Jacobian of additive filters.

    Args:
        layer: A built `ROAFDense`, or a `DepthStack` of it.
        lipschitz: Number, the largest slope of the activation. Defaults to 1, the slope
            of tanh and of ReLU.

    Returns:
        The lower and the upper bound, from the present norm of each kernel.

    Raises:
        ValueError: If `layer` is not a built layer of this kind.

    Source: `keras_bsnn.ops.roaf.jacobian_bounds`.

    Example:

    >>> import keras_bsnn
    >>> layer = keras_bsnn.layers.ROAFDense(8, 0.9, kernel_initializer="zeros")
    >>> layer.build((None, 8))
    >>> keras_bsnn.diagnostics.jacobian_bounds(layer)
    (0.9, 0.9)
    """
    found = list(parts(layer)) if getattr(layer, "built", False) else []
    if len(found) != 1 or not isinstance(found[0].layer, ROAFDense):
        raise ValueError(
            "`layer` must be a built ROAFDense, or a built DepthStack of it. "
            f"Received: {layer!r}"
        )
    (part,) = found
    kernels = keras.ops.convert_to_numpy(part.weights[0])
    norms = np.linalg.norm(kernels, 2, axis=(-2, -1)).ravel()
    alpha, beta = part.layer.alpha, part.layer.beta
    return roaf.jacobian_bounds(alpha, lipschitz, norms, len(norms), beta)


def check_jacobian(
    layer: keras.layers.Layer, x: Tensor, lipschitz: float = 1.0
) -> JacobianCheck:
    """Compares the Jacobian of layers with additive filters with its bounds.

    The cost is a backward pass for each unit.

    Args:
        layer: A built `ROAFDense`, or a `DepthStack` of it.
        x: Inputs of the layer, an array or tensor of shape `(batch, units)`.
        lipschitz: Number, the largest slope of the activation. Defaults to 1.

    Returns:
        A `JacobianCheck`.

    Raises:
        ValueError: If `layer` is not a built layer of this kind.

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
