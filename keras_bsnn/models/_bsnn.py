"""Bidirectionally self-normalizing networks (BSNN)."""

import keras

from keras_bsnn._types import Activation, Retraction, Shape
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.models import _parts
from keras_bsnn.ops import _check


def bsnn_mlp(
    depth: int = 200,
    units: int = 128,
    activation: Activation = "gelu",
    classes: int = 10,
    eta: float = 0.15,
    input_shape: Shape | None = None,
    retraction: Retraction = "newton_schulz",
    seed: int | None = None,
    stacked: bool = True,
    tangent_gradient: bool = False,
) -> keras.Sequential:
    """A bidirectionally self-normalizing network with `depth` orthogonal hidden layers.

    The layers are `Flatten`, a `Dense` whose outputs are normalized to the norm
    `sqrt(units)` that the theory starts from, `depth` layers `OrthogonalDense` without
    bias, and a `Dense` to the logits.

    `keras_bsnn.optimizers.StiefelMuon(0.05)` trains the network at any depth and width,
    and keeps the orthogonality error below 1e-5. With other optimizers it stays below
    1e-4; `keras_bsnn.callbacks.Retract` brings it below 1e-6 at the end.

    Args:
        depth: The number of orthogonal layers, an integer of at least 1. Defaults to
            200.
        units: The width of the hidden layers, an integer of at least 1. Defaults to
            128.
        activation: A function `f`, by name or as a callable. The network uses
            `DepthShaped(f, depth, eta)`, or `GaussianPoincare(f)` if it is so shallow
            that it stays below `eta` without shaping. An activation that is normalized
            already (`"gp_tanh"`, or an object of `keras_bsnn.activations`) is used as
            it is. Defaults to `"gelu"`.
        classes: The number of logits, an integer of at least 1. Defaults to 10.
        eta: The correlation of two orthogonal inputs after `depth` layers, a float in
            (0, 1). The larger it is, the further norms drift apart during training.
            Defaults to 0.15.
        input_shape: The shape of one input, a tuple. Defaults to `None`, which leaves
            it to the first batch.
        retraction: The retraction to the orthogonal matrices, for
            `keras_bsnn.constraints.Orthogonal`: a name or a callable. Defaults to
            `"newton_schulz"`.
        seed: An integer for reproducible initial weights. Defaults to `None`.
        stacked: A boolean: whether the hidden layers are one `DepthStack`, whose
            compile time does not grow with depth, or separate layers. Defaults to
            `True`.
        tangent_gradient: A boolean: whether `OrthogonalDense` projects the gradients of
            its kernel, so that fewer kernels need a retraction while steps are small.
            The optimizers of `keras_bsnn.optimizers` project by themselves. Defaults to
            `False`.

    Returns:
        A `keras.Sequential` that is not compiled. Its input has the shape `(batch,
        ...)` and should be centered, at any scale; its output is float32 logits of
        shape `(batch, classes)`.

    Raises:
        ValueError: An argument is out of range.

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169, section on experiments. The shaped
    activation, the normalized start and the retraction are this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=32, input_shape=(8, 8, 1))
    >>> model.output_shape
    (None, 10)
    """
    depth = _check.integer("depth", depth)
    function = _parts.normalized(activation, depth, eta)
    first, last, *seeds = _parts.seeds(seed, 3 if stacked else depth + 2)
    hidden = [
        OrthogonalDense(
            units,
            activation=function,
            use_bias=False,
            kernel_initializer=HaarOrthogonal(seed=seed),
            kernel_constraint=Orthogonal(
                retraction, steps=1, tolerance=_parts.TOLERANCE
            ),
            tangent_gradient=tangent_gradient,
        )
        for seed in seeds
    ]
    if stacked:
        hidden = [DepthStack(hidden[0], depth)]
    start = [
        keras.layers.Flatten(),
        keras.layers.Dense(
            units,
            kernel_initializer=HaarOrthogonal(_parts.FIRST_NORM, seed=first),
            kernel_constraint=keras.constraints.MinMaxNorm(
                _parts.FIRST_NORM, _parts.FIRST_NORM, axis=0
            ),
        ),
        keras.layers.UnitNormalization(),
        keras.layers.Rescaling(units**0.5),
        keras.layers.Activation(function),
    ]
    return _parts.classifier([*start, *hidden], classes, input_shape, last)
