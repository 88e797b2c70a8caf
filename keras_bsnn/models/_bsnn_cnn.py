"""Bidirectionally self-normalizing networks of convolutions."""

from collections.abc import Sequence

import keras

from keras_bsnn._types import Activation, Retraction, Shape
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import (
    DepthStack,
    OrthogonalConv2D,
    PerLocationNormalization,
)
from keras_bsnn.models import _parts, _stem
from keras_bsnn.ops import _check


def bsnn_cnn(
    depth: int | Sequence[int] = 200,
    filters: int | Sequence[int] = 16,
    activation: Activation = "relu",
    classes: int = 10,
    eta: float = 0.15,
    stem: Sequence[int] | None = None,
    padding: str = "circular",
    input_shape: Shape | None = None,
    retraction: Retraction = "newton_schulz",
    seed: int | None = None,
    stacked: bool = True,
    checkpoint_every: int | None = None,
) -> keras.Sequential:
    """A plain convolutional network with `depth` orthogonal layers, without skips.

    The layers are

    - a stem of a few convolutions that halve the height and width, until an image is
      a grid of about 4 x 4 places, and a last one whose outputs are normalized at each
      place to the root mean square 1 that the theory starts from;
    - `depth` layers `OrthogonalConv2D` with kernels of 3 x 3, without bias, on that
      grid; or several stages of them, joined by orthogonal convolutions that halve the
      height and width again;
    - `Flatten`, and a `Dense` to the logits.

    `keras_bsnn.optimizers.StiefelMuon(0.05)` trains the network at any depth.

    Args:
        depth: The number of orthogonal layers of 3 x 3, an integer of at least 1, or
            one for each stage. Defaults to 200.
        filters: The channels of these layers, an integer of at least 4, or one for each
            stage. Defaults to 16.
        activation: A function `f`, by name or as a callable, as of `bsnn_mlp`. It is
            shaped for all orthogonal layers together. Defaults to `"relu"`, which is
            the fastest.
        classes: The number of logits, an integer of at least 1. Defaults to 10.
        eta: The correlation of two orthogonal inputs after all orthogonal layers, a
            float in (0, 1). Defaults to 0.15.
        stem: The filters of the convolutions with a stride of 2 in front, a sequence of
            integers, which may be empty. Defaults to `None`: 16, 32, 64 and so on, as
            many as leave a height and width of at least 4, which needs `input_shape`.
        padding: The padding of the orthogonal layers, as of `OrthogonalConv2D`.
            Defaults to `"circular"`.
        input_shape: The shape of one image, `(height, width, channels)`, or as
            `keras.config.image_data_format()` has it. Defaults to `None`, which leaves
            it to the first batch.
        retraction: The retraction to the orthogonal matrices, for
            `keras_bsnn.constraints.Orthogonal`: a name or a callable. Defaults to
            `"newton_schulz"`.
        seed: An integer for reproducible initial weights. Defaults to `None`.
        stacked: A boolean: whether the layers of a stage are one `DepthStack`, whose
            compile time does not grow with depth, or separate layers. Defaults to
            `True`.
        checkpoint_every: As of `keras_bsnn.layers.DepthStack`, for stacks that do not
            fit into memory. Defaults to `None`.

    Returns:
        A `keras.Sequential` that is not compiled. Its input has the shape `(batch,
        height, width, channels)` and should be standardized; its output is float32
        logits of shape `(batch, classes)`.

    Raises:
        ValueError: An argument is out of range.

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169 (BSNN); Xiao et al., arXiv 1806.05393
    (plain convolutional networks of 10,000 layers; the stem). That the convolutions are
    orthogonal, and stay so, is this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.bsnn_cnn(depth=100, input_shape=(28, 28, 1))
    >>> [layer.output.shape[1:3] for layer in model.layers[:4]]
    [(14, 14), (7, 7), (4, 4), (4, 4)]
    >>> model.output_shape
    (None, 10)
    """
    depths, widths = _stages(depth, filters)
    function = _parts.normalized(activation, sum(depths) + len(depths) - 1, eta)
    stem_seed, *others = _parts.seeds(seed, 2 + len(depths) + sum(depths))
    seeds = iter(others)

    def orthogonal(width, kernel_size=3, strides=1):
        return OrthogonalConv2D(
            width,
            kernel_size,
            strides,
            padding,
            activation=function,
            use_bias=False,
            kernel_initializer=HaarOrthogonal(seed=next(seeds)),
            kernel_constraint=Orthogonal(
                retraction, steps=1, tolerance=_parts.TOLERANCE
            ),
        )

    layers = [
        *_stem.layers(stem, input_shape, stem_seed),
        keras.layers.Conv2D(
            widths[0],
            1,
            kernel_initializer=HaarOrthogonal(_parts.FIRST_NORM, seed=next(seeds)),
            kernel_constraint=keras.constraints.MinMaxNorm(
                _parts.FIRST_NORM, _parts.FIRST_NORM, axis=(0, 1, 2)
            ),
        ),
        PerLocationNormalization(append_one=False),
        keras.layers.Activation(function),
    ]
    for i, (length, width) in enumerate(zip(depths, widths, strict=True)):
        if i > 0:
            layers.append(orthogonal(width, kernel_size=2, strides=2))
        if stacked:
            stack = DepthStack(
                orthogonal(width), length, checkpoint_every=checkpoint_every
            )
            layers.append(stack)
        else:
            layers += [orthogonal(width) for _ in range(length)]
    layers.append(keras.layers.Flatten())
    return _parts.classifier(layers, classes, input_shape, next(seeds))


def _stages(depth, filters):
    """The depths and widths of the stages, as many of one as of the other."""
    depths = _integers("depth", depth)
    widths = _integers("filters", filters)
    if len(depths) != len(widths):
        kind = f"an integer for each of the {len(depths)} stages of depth={depth}"
        raise _check.refusal("filters", kind, filters)
    return depths, widths


def _integers(name, value):
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(_check.integer(name, number) for number in values)
