"""Networks with random orthogonal additive filters (roaf)."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_bsnn._types import Activation, Shape
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import ROAF, DepthStack, ROAFConv2D, ROAFDense
from keras_bsnn.layers._roaf_layer import normal_kernel
from keras_bsnn.models import _parts, _stem
from keras_bsnn.ops import _check, roaf


def roaf_mlp(
    depth: int = 1000,
    units: int = 64,
    activation: Activation = "tanh",
    classes: int = 10,
    c: float = 1.0,
    filter: str = "haar",
    shared_filter: bool = False,
    input_shape: Shape | None = None,
    checkpoint_every: int | None = None,
    seed: int | None = None,
) -> keras.Sequential:
    """A network of `depth` layers with random orthogonal additive filters.

    The layers are `Flatten`, a `Dense` without activation, `depth` layers `ROAFDense`
    with `alpha = 1 - c / depth`, and a `Dense` to the logits.

    Gradients of the hidden kernels have the factor `c / depth`. Train the network with
    an optimizer whose steps do not depend on the size of gradients, such as Adam. On
    held-out data ReLU, `c = 3` and a learning rate of 0.01 did best.

    Args:
        depth: The number of hidden layers, an integer of at least 1. Defaults to 1000.
        units: The width of the hidden layers, an integer of at least 1. Defaults to 64.
        activation: The activation of `ROAFDense`, by name or as a callable. Defaults to
            `"tanh"`.
        classes: The number of logits, an integer of at least 1. Defaults to 10.
        c: A number in [0, depth]: signals and gradients are multiplied by about
            `exp(-c)` at initialization. Defaults to 1.
        filter: The orthogonal map of `ROAFDense`: `"haar"`, `"signed_haar"`,
            `"rotations"`, `"permutation"`, `"shift"` or `"identity"`. Defaults to
            `"haar"`.
        shared_filter: A boolean: whether all layers have the same orthogonal map.
            Defaults to `False`.
        input_shape: The shape of one input, a tuple. Defaults to `None`, which leaves
            it to the first batch.
        checkpoint_every: The number of layers between the signals that `DepthStack`
            keeps for the backward pass, an integer. Defaults to `None`.
        seed: An integer for reproducible initial weights. Defaults to `None`.

    Returns:
        A `keras.Sequential` that is not compiled. Its input has the shape `(batch,
        ...)` and should be standardized; its output is float32 logits of shape
        `(batch, classes)`.

    Raises:
        ValueError: An argument is out of range.

    Source: Ceni, arXiv 2210.01245.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.roaf_mlp(1000, 16, input_shape=(8, 8, 1))
    >>> model.output_shape
    (None, 10)
    """
    depth = _check.integer("depth", depth)
    first, filter_seed, hidden, last = _parts.seeds(seed, 4)
    block = ROAFDense(
        units,
        roaf.alpha_for_depth(depth, c),
        activation,
        filter,
        shared_filter=shared_filter,
        filter_seed=filter_seed,
        kernel_initializer=normal_kernel(hidden),
    )
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(units, kernel_initializer=HaarOrthogonal(seed=first)),
        DepthStack(block, depth, checkpoint_every=checkpoint_every),
    ]
    return _parts.classifier(layers, classes, input_shape, last)


def roaf_cnn(
    depth: int = 1000,
    filters: int = 16,
    activation: Activation = "tanh",
    classes: int = 10,
    c: float = 1.0,
    filter: str = "permutation",
    shared_filter: bool = False,
    stem: Sequence[int] | None = None,
    input_shape: Shape | None = None,
    checkpoint_every: int | None = None,
    seed: int | None = None,
) -> keras.Sequential:
    """A network of `depth` convolutions with random orthogonal additive filters.

    The layers are the stem of `bsnn_cnn`, a `Conv2D` of one tap without activation,
    `depth` layers `ROAFConv2D` of 3 x 3 taps with `alpha = 1 - c / depth`, `Flatten`,
    and a `Dense` to the logits.

    Gradients of the hidden kernels have the factor `c / depth`. Train the network with
    an optimizer whose steps do not depend on the size of gradients, such as Adam. On
    held-out digits, 20 and 100 layers did best with a learning rate of 0.01.

    Args:
        depth: The number of hidden layers, an integer of at least 1. Defaults to 1000.
        filters: The channels of the hidden layers, an integer of at least 1. Defaults
            to 16.
        activation: The activation of `ROAFConv2D`, by name or as a callable. Defaults
            to `"tanh"`.
        classes: The number of logits, an integer of at least 1. Defaults to 10.
        c: A number in [0, depth]: signals and gradients are multiplied by about
            `exp(-c)` at initialization. Defaults to 1.
        filter: What `ROAFConv2D` does to the channels before their pixels move: the
            name of a filter of `roaf_mlp`. Defaults to `"permutation"`.
        shared_filter: A boolean: whether all layers have the same filter. Defaults to
            `False`.
        stem: The filters of the convolutions with a stride of 2 in front, as of
            `bsnn_cnn`. Defaults to `None`.
        input_shape: The shape of one image, as of `bsnn_cnn`. Defaults to `None`.
        checkpoint_every: As of `roaf_mlp`. Defaults to `None`.
        seed: An integer for reproducible initial weights. Defaults to `None`.

    Returns:
        A `keras.Sequential` that is not compiled. Its input has the shape `(batch,
        height, width, channels)` and should be standardized; its output is float32
        logits of shape `(batch, classes)`.

    Raises:
        ValueError: An argument is out of range.

    Source: Ceni, arXiv 2210.01245, for dense layers; the form for images is this
    package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.roaf_cnn(100, 16, input_shape=(28, 28, 1))
    >>> model.output_shape
    (None, 10)
    """
    depth = _check.integer("depth", depth)
    stem_seed, first, filter_seed, hidden, last = _parts.seeds(seed, 5)
    block = ROAFConv2D(
        filters,
        alpha=roaf.alpha_for_depth(depth, c),
        activation=activation,
        filter=filter,
        shared_filter=shared_filter,
        filter_seed=filter_seed,
        kernel_initializer=normal_kernel(hidden),
    )
    layers = [
        *_stem.layers(stem, input_shape, stem_seed),
        keras.layers.Conv2D(filters, 1, kernel_initializer=HaarOrthogonal(seed=first)),
        DepthStack(block, depth, checkpoint_every=checkpoint_every),
        keras.layers.Flatten(),
    ]
    return _parts.classifier(layers, classes, input_shape, last)


def roaf_rnn(
    units: int = 128,
    outputs: int = 10,
    alpha: float = 0.999,
    beta: float | None = None,
    scale: float | None = None,
    readout: Sequence[int] = (),
    input_shape: Shape = (None, 1),
    seed: int | None = None,
    **kwargs: Any,
) -> keras.Sequential:
    """A recurrent network that remembers `1 / (1 - alpha)` steps: `ROAF` and `Dense`.

    The state of a long memory is small. A factor enlarges it before it is read.

    Args:
        units: The size of the state, an integer of at least 1. Defaults to 128.
        outputs: The number of outputs, an integer of at least 1. Defaults to 10.
        alpha: The factor of the orthogonal map in `keras_bsnn.layers.ROAFCell`, a float
            in [0, 1]. Defaults to 0.999.
        beta: The factor of the trained part in `ROAFCell`, a float. Defaults to `None`,
            which stands for `1 - alpha`.
        scale: The factor that enlarges the state, a float. Defaults to `None`, which
            stands for `sqrt(2 - 2 alpha) / beta`: the root mean square of the state is
            then at most 1 if inputs are independent. Where few inputs count, `1 / beta`
            is suitable: each of them then adds a term of the size of the activation.
        readout: The units of hidden layers with ReLU between the state and the outputs,
            a sequence of integers. Defaults to `()`.
        input_shape: The shape `(steps, features)` of one sequence; `steps` may be
            `None`. Defaults to `(None, 1)`.
        seed: An integer for reproducible initial weights. Defaults to `None`.
        kwargs: Further arguments of `keras_bsnn.layers.ROAF`, such as
            `return_sequences` for an output after each step.

    Returns:
        A `keras.Sequential` that is not compiled. Its input has the shape `(batch,
        steps, features)`; its output is float32 of shape `(batch, outputs)`, or
        `(batch, steps, outputs)`.

    Raises:
        ValueError: An argument is out of range.

    Source: Ceni, arXiv 2210.01245. The factor is this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.roaf_rnn(64, outputs=1, input_shape=(None, 2))
    >>> model.output_shape
    (None, 1)
    """
    first, filter_seed, hidden, *last = _parts.seeds(seed, 4 + len(readout))
    initializers = {
        "filter_seed": filter_seed,
        "kernel_initializer": keras.initializers.GlorotUniform(seed=first),
        "recurrent_initializer": normal_kernel(hidden),
    }
    memory = ROAF(units, alpha, beta=beta, **(initializers | kwargs))
    dense = [
        keras.layers.Dense(n, "relu", kernel_initializer=keras.initializers.HeNormal(s))
        for n, s in zip(readout, last, strict=False)
    ]
    return keras.Sequential(
        [
            keras.Input(input_shape),
            memory,
            keras.layers.Rescaling(_to_unit(alpha, beta) if scale is None else scale),
            *dense,
            keras.layers.Dense(
                outputs,
                dtype="float32",
                kernel_initializer=keras.initializers.GlorotUniform(seed=last[-1]),
            ),
        ]
    )


def _to_unit(alpha: float, beta: float | None) -> float:
    """The factor that brings a sum of independent terms of `beta` to size 1.

    The terms fade by `alpha` in each step.
    """
    beta = abs(roaf.beta_of(alpha, beta))
    return (2 - 2 * alpha) ** 0.5 / beta if beta and alpha < 1 else 1.0
