"""Networks with batch normalization and orthogonal kernels."""

from collections.abc import Callable
from typing import Any

import keras

from keras_bsnn import activations
from keras_bsnn._types import Activation, Retraction, Shape
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.models import _parts
from keras_bsnn.ops import _check

ODD = (keras.activations.tanh, activations.sin)  # slope 1 at 0, and nowhere steeper
EVEN_GAIN = 0.75  # times depth^(-1/4); chosen on held-out data of MNIST at 200 layers


def batchnorm_mlp(
    depth: int = 200,
    units: int = 100,
    activation: Activation = "tanh",
    classes: int = 10,
    gain: float | Callable[[Shape], Any] | None = None,
    eta: float = 0.15,
    shrinkage: float | None = None,
    input_shape: Shape | None = None,
    retraction: Retraction | None = "newton_schulz",
    seed: int | None = None,
) -> keras.Sequential:
    """A network of `depth` layers with batch normalization and orthogonal kernels.

    The layers are `Flatten`, a `BatchNormDense` without activation, `depth` layers
    `BatchNormDense`, a factor that undoes the last gain, and a `Dense` to the logits.

    `keras_bsnn.optimizers.StiefelMuon(0.05)` trains the network at any depth and width.
    After training, or before each evaluation,
    `keras_bsnn.callbacks.RecalibrateBatchNorm` computes the statistics for evaluation.

    Args:
        depth: The number of hidden layers, an integer of at least 1. Defaults to 200.
        units: The width of the hidden layers, an integer of at least 1. Defaults to
            100.
        activation: `None` for a linear network; `"tanh"` or `"sin"`, which by default
            become closer to linear as depth grows; or another `f`, for which the
            network uses `DepthShaped(f, depth, eta)` as `bsnn_mlp` does. Defaults to
            `"tanh"`.
        classes: The number of logits, an integer of at least 1. Defaults to 10.
        gain: The gain of `BatchNormDense`, a float or an initializer such as
            `DepthDecay()`. Defaults to `None`, which stands for `0.75 depth^(-1/4)`
            with `"tanh"` or `"sin"`, and for 1 otherwise. The nonlinear part of a
            layer's output has a share of about `gain^4` of its variance. All layers
            together are therefore equally nonlinear at any depth, and each contributes
            the same. With `DepthDecay()`, the gain of the paper, the first few layers
            contribute nearly everything.
        eta: The correlation of two orthogonal inputs after `depth` layers with a shaped
            activation, a float in (0, 1). Defaults to 0.15.
        shrinkage: The shrinkage of `BatchNormDense`, a float in [0, 1]. Defaults to
            `None`, which stands for `1 - 2 / depth`: all layers together then make the
            features no more alike than two layers would. This is better on test data,
            and a batch may be small or degenerate. With 0, as in the paper, batches
            must have more samples than there are units.
        input_shape: The shape of one input, a tuple. Defaults to `None`, which leaves
            it to the first batch.
        retraction: The retraction to the orthogonal matrices, for
            `keras_bsnn.constraints.Orthogonal`: a name or a callable; or `None`, with
            which kernels may leave the orthogonal matrices, as in the paper. Defaults
            to `"newton_schulz"`.
        seed: An integer for reproducible initial weights. Defaults to `None`.

    Returns:
        A `keras.Sequential` that is not compiled. Its input has the shape `(batch,
        ...)`, at any scale; its output is float32 logits of shape `(batch, classes)`.

    Raises:
        ValueError: An argument is out of range.

    Source: Meterez et al., arXiv 2310.02012, sections 3 and 5. The retraction, the
    shaped activation and the shrinkage are this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.batchnorm_mlp(10, 32, input_shape=(8, 8, 1))
    >>> model.output_shape
    (None, 10)
    """
    depth = _check.integer("depth", depth)
    function = activations.get(activation)
    if gain is None:
        gain = EVEN_GAIN * depth**-0.25 if function in ODD else 1.0
    if shrinkage is None:
        shrinkage = max(0.0, 1 - 2 / depth)
    if function not in (*ODD, keras.activations.linear):
        function = _parts.normalized(function, depth, eta)
    constraint = retraction and Orthogonal(
        retraction, steps=1, tolerance=_parts.TOLERANCE
    )
    first, hidden, last = _parts.seeds(seed, 3)
    block = BatchNormDense(
        units,
        function,
        gain,
        shrinkage=shrinkage,
        kernel_initializer=HaarOrthogonal(seed=hidden),
        kernel_constraint=constraint,
    )
    layers = [
        keras.layers.Flatten(),
        BatchNormDense(
            units, shrinkage=shrinkage, kernel_initializer=HaarOrthogonal(seed=first)
        ),
        DepthStack(block, depth),
        # Otherwise logits would start as small as the last gain.
        keras.layers.Rescaling(1 / _last(block.gain, depth)),
    ]
    return _parts.classifier(layers, classes, input_shape, last)


def _last(gain: float | Callable[[Shape], Any], depth: int) -> float:
    """The gain of the last layer."""
    last = float(gain((depth,))[-1]) if callable(gain) else gain
    if last == 0:
        raise _check.refusal("gain", "other than 0 in the last layer", gain)
    return last
