"""Networks with batch normalization and orthogonal kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_bsnn import activations
from keras_bsnn._types import Activation, Retraction, Shape
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import BatchNormConv2D, BatchNormDense, DepthStack
from keras_bsnn.models import _parts, _stem
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
    first, hidden, last = _parts.seeds(seed, 3)
    depth = _check.integer("depth", depth)
    start, arguments = _arguments(depth, activation, gain, eta, shrinkage, retraction)
    block = BatchNormDense(
        units, **arguments, kernel_initializer=HaarOrthogonal(seed=hidden)
    )
    layers = [
        keras.layers.Flatten(),
        BatchNormDense(units, **start, kernel_initializer=HaarOrthogonal(seed=first)),
        *_stacked(block, depth),
    ]
    return _parts.classifier(layers, classes, input_shape, last)


def batchnorm_cnn(
    depth: int = 200,
    filters: int = 16,
    activation: Activation = "tanh",
    classes: int = 10,
    gain: float | Callable[[Shape], Any] | None = None,
    eta: float = 0.15,
    shrinkage: float | None = None,
    stem: Sequence[int] | None = None,
    input_shape: Shape | None = None,
    retraction: Retraction | None = "newton_schulz",
    seed: int | None = None,
) -> keras.Sequential:
    """A network of `depth` convolutions with batch normalization.

    The layers are the stem of `bsnn_cnn`, a `BatchNormConv2D` of one tap without
    activation, `depth` layers `BatchNormConv2D` of 3 x 3 taps with circular padding, a
    factor that undoes the last gain, `Flatten`, and a `Dense` to the logits.

    `keras_bsnn.optimizers.StiefelMuon(0.05)` trains the network at any depth and width.
    After training, or before each evaluation,
    `keras_bsnn.callbacks.RecalibrateBatchNorm` computes the statistics for evaluation.

    Args:
        depth: The number of hidden layers, an integer of at least 1. Defaults to 200.
        filters: The channels of the hidden layers, an integer of at least 4. Defaults
            to 16.
        activation: As of `batchnorm_mlp`. Defaults to `"tanh"`.
        classes: The number of logits, an integer of at least 1. Defaults to 10.
        gain: The gain of `BatchNormConv2D`, a float or an initializer, as of
            `batchnorm_mlp`. Defaults to `None`.
        eta: As of `batchnorm_mlp`, a float in (0, 1). Defaults to 0.15.
        shrinkage: The shrinkage of `BatchNormConv2D`, a float in [0, 1]. Defaults to
            `None`, which stands for `1 - 2 / depth`, as of `batchnorm_mlp`. With 0,
            batches must have more images than there are filters.
        stem: The filters of the convolutions with a stride of 2 in front, as of
            `bsnn_cnn`. Defaults to `None`.
        input_shape: The shape of one image, as of `bsnn_cnn`. Defaults to `None`.
        retraction: As of `batchnorm_mlp`. Defaults to `"newton_schulz"`.
        seed: An integer for reproducible initial weights. Defaults to `None`.

    Returns:
        A `keras.Sequential` that is not compiled. Its input has the shape `(batch,
        height, width, channels)`, at any scale; its output is float32 logits of shape
        `(batch, classes)`.

    Raises:
        ValueError: An argument is out of range.

    Source: as of `batchnorm_mlp`; the form for images is this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.batchnorm_cnn(10, 16, input_shape=(28, 28, 1))
    >>> model.output_shape
    (None, 10)
    """
    stem_seed, first, hidden, last = _parts.seeds(seed, 4)
    depth = _check.integer("depth", depth)
    start, arguments = _arguments(depth, activation, gain, eta, shrinkage, retraction)
    block = BatchNormConv2D(
        filters, **arguments, kernel_initializer=HaarOrthogonal(seed=hidden)
    )
    layers = [
        *_stem.layers(stem, input_shape, stem_seed),
        BatchNormConv2D(
            filters, 1, **start, kernel_initializer=HaarOrthogonal(seed=first)
        ),
        *_stacked(block, depth),
        keras.layers.Flatten(),
    ]
    return _parts.classifier(layers, classes, input_shape, last)


def _arguments(depth, activation, gain, eta, shrinkage, retraction):
    """The arguments of the first layer, and those of the block."""
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
    start = {"shrinkage": shrinkage}
    of_block = {"activation": function, "gain": gain, "kernel_constraint": constraint}
    return start, {**start, **of_block}


def _stacked(block, depth):
    """The hidden layers, and what undoes the last gain.

    Otherwise logits would start as small as that.
    """
    factor = keras.layers.Rescaling(1 / _last(block.gain, depth))
    return DepthStack(block, depth), factor


def _last(gain: float | Callable[[Shape], Any], depth: int) -> float:
    """The gain of the last layer."""
    last = float(gain((depth,))[-1]) if callable(gain) else gain
    if last == 0:
        raise _check.refusal("gain", "other than 0 in the last layer", gain)
    return last
