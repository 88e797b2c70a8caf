"""Ready-made networks."""

import keras
import numpy as np

from keras_bsnn import activations
from keras_bsnn._public import public
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import (
    ROAF,
    BatchNormDense,
    DepthStack,
    OrthogonalDense,
    ROAFDense,
)
from keras_bsnn.layers.roaf_dense import normal_kernel
from keras_bsnn.ops import _check, gaussian, roaf

ODD = (keras.activations.tanh, activations.sin)  # of slope 1 at 0, nowhere steeper
EVEN_GAIN = 0.75  # times depth^(-1/4); chosen on held-out data of MNIST at 200 layers
TOLERANCE = 5e-5  # as estimated; errors stay below 1e-4
# Norm of the first kernel's columns. Behind it outputs are normalized, so any would do;
# these grow to about three times their size as the kernel finds where the data vary.
FIRST_NORM = 0.5


@public
def bsnn_mlp(
    depth=200,
    units=128,
    activation="gelu",
    classes=10,
    eta=0.15,
    input_shape=None,
    retraction="newton_schulz",
    seed=None,
    stacked=True,
    tangent_gradient=True,
):
    """A bidirectionally self-normalizing network: `depth` orthogonal hidden layers.

    `Flatten`, a `Dense` whose outputs are normalized to the norm `sqrt(units)` that the
    theory starts from, `depth` times `OrthogonalDense` without bias, and a `Dense` to
    the logits. While it is trained, the orthogonality error stays below 1e-4;
    `keras_bsnn.callbacks.Retract` brings it below 1e-6 at the end.

    `keras_bsnn.optimizers.StiefelMuon(0.05)` trains it at any depth and width.

    Args:
        depth: number of orthogonal layers, an integer of at least 1.
        units: their width.
        activation: `f`, by name or as a callable: the network uses
            `DepthShaped(f, depth, eta)`, or `GaussianPoincare(f)` if it is so shallow
            that it stays below `eta` without shaping. An activation that is normalized
            already (`"gp_tanh"`, an object of `keras_bsnn.activations`) is used as it
            is.
        classes: number of logits.
        eta: correlation of two orthogonal inputs after `depth` layers. Where it is
            larger, norms drift further apart while the network is trained.
        input_shape: shape of one input; `None` to let the first batch tell.
        retraction: as of `keras_bsnn.constraints.Orthogonal`.
        seed: an integer for reproducible initial weights, or `None`.
        stacked: whether the hidden layers are one `DepthStack`, which compiles in the
            same time at any depth, or one layer each.
        tangent_gradient: as of `OrthogonalDense`. An optimizer that projects by itself,
            as those of `keras_bsnn.optimizers`, does not need it.

    Returns:
        `keras.Sequential`, not compiled. Input `(batch, ...)`, centered, of any scale;
        output float32 logits `(batch, classes)`.

    Raises:
        ValueError: an argument is out of range.

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169, section on experiments; the shaped
    activation, the normalized start and the retraction are this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=32, input_shape=(8, 8, 1))
    >>> model.output_shape
    (None, 10)
    """
    _check.integer("depth", depth)
    activation = _normalized(activation, depth, eta)
    first, last, *seeds = _seeds(seed, 3 if stacked else depth + 2)
    hidden = [
        OrthogonalDense(
            units,
            activation=activation,
            use_bias=False,
            kernel_initializer=HaarOrthogonal(seed=seed),
            kernel_constraint=Orthogonal(retraction, steps=1, tolerance=TOLERANCE),
            tangent_gradient=tangent_gradient,
        )
        for seed in seeds
    ]
    if stacked:
        hidden = [DepthStack(*hidden, depth)]
    return keras.Sequential(
        [
            *([] if input_shape is None else [keras.Input(input_shape)]),
            keras.layers.Flatten(),
            keras.layers.Dense(
                units,
                kernel_initializer=HaarOrthogonal(FIRST_NORM, seed=first),
                kernel_constraint=keras.constraints.MinMaxNorm(
                    FIRST_NORM, FIRST_NORM, axis=0
                ),
            ),
            keras.layers.UnitNormalization(),
            keras.layers.Rescaling(units**0.5),
            keras.layers.Activation(activation),
            *hidden,
            keras.layers.Dense(
                classes,
                dtype="float32",
                kernel_initializer=HaarOrthogonal(seed=last),
            ),
        ]
    )


@public
def batchnorm_mlp(
    depth=200,
    units=100,
    activation="tanh",
    classes=10,
    gain=None,
    eta=0.15,
    shrinkage=None,
    input_shape=None,
    retraction="newton_schulz",
    seed=None,
):
    """A network of `depth` layers with batch normalization and orthogonal kernels.

    `Flatten`, a `BatchNormDense` without activation, `depth` times `BatchNormDense`, a
    factor that undoes the last gain, and a `Dense` to the logits.

    `keras_bsnn.optimizers.StiefelMuon(0.05)` trains it at any depth and width. After
    training, or before each evaluation, `keras_bsnn.callbacks.RecalibrateBatchNorm`
    gives it the statistics that it is evaluated with.

    Args:
        depth: number of hidden layers, an integer of at least 1.
        units: their width.
        activation: `None` for a linear network, `"tanh"` or `"sin"`, which bend less
            and less with depth, or another `f`, of which the network uses
            `DepthShaped(f, depth, eta)` as `bsnn_mlp` does.
        classes: number of logits.
        gain: as of `BatchNormDense`; `None` for `0.75 depth^(-1/4)` with `"tanh"` or
            `"sin"`, and 1 otherwise. The part of a layer's output that is not linear
            has a share of about `gain^4` of its variance: so all layers together bend
            the same at any depth, each by as much. With `DepthDecay()`, the gain of the
            paper, nearly all of it is in the first few layers.
        eta: as of `bsnn_mlp`.
        shrinkage: as of `BatchNormDense`. `None` for `1 - 2 / depth`, with which all
            layers together make features no more equal than two would: this is better
            on test data, and a batch may be small or degenerate. 0 for the network of
            the paper, whose batches must have more samples than there are units.
        input_shape: shape of one input; `None` to let the first batch tell.
        retraction: as of `keras_bsnn.constraints.Orthogonal`, or `None` to let kernels
            leave the orthogonal matrices, as in the paper.
        seed: an integer for reproducible initial weights, or `None`.

    Returns:
        `keras.Sequential`, not compiled. Input `(batch, ...)`, of any scale; output
        float32 logits `(batch, classes)`.

    Raises:
        ValueError: an argument is out of range.

    Source: Meterez et al., arXiv 2310.02012, sections 3 and 5; the retraction, the
    shaped activation and the shrinkage are this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.batchnorm_mlp(10, 32, input_shape=(8, 8, 1))
    >>> model.output_shape
    (None, 10)
    """
    _check.integer("depth", depth)
    function = activations.get(activation)
    if gain is None:
        gain = EVEN_GAIN * depth**-0.25 if function in ODD else 1.0
    if shrinkage is None:
        shrinkage = max(0.0, 1 - 2 / depth)
    if function not in (*ODD, keras.activations.linear):
        function = _normalized(function, depth, eta)
    constraint = retraction and Orthogonal(retraction, steps=1, tolerance=TOLERANCE)
    first, hidden, last = (HaarOrthogonal(seed=s) for s in _seeds(seed, 3))
    block = BatchNormDense(
        units,
        function,
        gain,
        shrinkage=shrinkage,
        kernel_initializer=hidden,
        kernel_constraint=constraint,
    )
    return keras.Sequential(
        [
            *([] if input_shape is None else [keras.Input(input_shape)]),
            keras.layers.Flatten(),
            BatchNormDense(units, shrinkage=shrinkage, kernel_initializer=first),
            DepthStack(block, depth),
            # Else logits would start as small as the last gain.
            keras.layers.Rescaling(1 / _last(block.gain, depth)),
            keras.layers.Dense(classes, dtype="float32", kernel_initializer=last),
        ]
    )


@public
def roaf_mlp(
    depth=1000,
    units=64,
    activation="tanh",
    classes=10,
    c=1.0,
    filter="haar",
    shared_filter=False,
    input_shape=None,
    checkpoint_every=None,
    seed=None,
):
    """A network of `depth` layers with random orthogonal additive filters.

    `Flatten`, a `Dense` without activation, `depth` times `ROAFDense` with `alpha = 1 -
    c / depth`, and a `Dense` to the logits.

    Gradients of the hidden kernels have the factor `c / depth`: train it with an
    optimizer whose steps do not depend on the size of gradients, as Adam. ReLU, `c = 3`
    and a learning rate of 0.01 did best, on data held out.

    Args:
        depth: number of hidden layers, an integer of at least 1.
        units: their width.
        activation, filter, shared_filter: as of `keras_bsnn.layers.ROAFDense`.
        classes: number of logits.
        c: signals and gradients are multiplied by about `exp(-c)` at the start.
        input_shape: shape of one input; `None` to let the first batch tell.
        checkpoint_every: as of `keras_bsnn.layers.DepthStack`.
        seed: an integer for reproducible initial weights, or `None`.

    Returns:
        `keras.Sequential`, not compiled. Input `(batch, ...)`, standardized; output
        float32 logits `(batch, classes)`.

    Raises:
        ValueError: an argument is out of range.

    Source: Ceni, arXiv 2210.01245.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.roaf_mlp(1000, 16, input_shape=(8, 8, 1))
    >>> model.output_shape
    (None, 10)
    """
    first, of_filter, hidden, last = _seeds(seed, 4)
    block = ROAFDense(
        units,
        roaf.alpha_for_depth(depth, c),
        activation,
        filter,
        shared_filter=shared_filter,
        filter_seed=of_filter,
        kernel_initializer=normal_kernel(hidden),
    )
    return keras.Sequential(
        [
            *([] if input_shape is None else [keras.Input(input_shape)]),
            keras.layers.Flatten(),
            keras.layers.Dense(units, kernel_initializer=HaarOrthogonal(seed=first)),
            DepthStack(block, depth, checkpoint_every=checkpoint_every),
            keras.layers.Dense(
                classes, dtype="float32", kernel_initializer=HaarOrthogonal(seed=last)
            ),
        ]
    )


@public
def roaf_rnn(
    units=128,
    outputs=10,
    alpha=0.999,
    beta=None,
    scale=None,
    readout=(),
    input_shape=(None, 1),
    seed=None,
    **kwargs,
):
    """A recurrent network that remembers `1 / (1 - alpha)` steps: `ROAF`, and `Dense`.

    The state of a long memory is small. A factor makes it larger before it is read.

    Args:
        units: size of the state.
        outputs: number of outputs.
        alpha, beta: as of `keras_bsnn.layers.ROAFCell`.
        scale: that factor, a number. `None` for `sqrt(2 - 2 alpha) / beta`: then the
            root mean square of the state is 1 at most, if inputs are independent. Where
            few inputs count, `1 / beta` suits: what each adds has the size of the
            activation.
        readout: units of hidden layers with ReLU between the state and the outputs.
        input_shape: `(steps, features)` of one sequence; steps may be `None`.
        seed: an integer for reproducible initial weights, or `None`.
        kwargs: further arguments of `keras_bsnn.layers.ROAF`, such as
            `return_sequences`, to have an output after each step.

    Returns:
        `keras.Sequential`, not compiled. Input `(batch, steps, features)`; output
        float32 `(batch, outputs)`, or `(batch, steps, outputs)`.

    Raises:
        ValueError: an argument is out of range.

    Source: Ceni, arXiv 2210.01245; the factor is this package's.

    Example:

    >>> import keras_bsnn
    >>> model = keras_bsnn.models.roaf_rnn(64, outputs=1, input_shape=(None, 2))
    >>> model.output_shape
    (None, 1)
    """
    first, of_filter, hidden, *last = _seeds(seed, 4 + len(readout))
    initializers = {
        "filter_seed": of_filter,
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


def _to_unit(alpha, beta):
    """Brings a sum of independent terms of `beta`, that fades by `alpha`, to size 1."""
    beta = abs(roaf.beta_of(alpha, beta))
    return (2 - 2 * alpha) ** 0.5 / beta if beta and alpha < 1 else 1.0


def _last(gain, depth):
    """The gain of the last layer."""
    last = float(gain((depth,))[-1]) if callable(gain) else gain
    if last == 0:
        raise _check.refusal("gain", "other than 0 in the last layer", gain)
    return last


def _seeds(seed, count):
    """A seed for each layer: as numbers they differ in a clone of the model, too."""
    _check.seed("seed", seed)
    if seed is None:
        return [None] * count
    return np.random.SeedSequence(seed).generate_state(count).tolist()


def _normalized(activation, depth, eta):
    activation = activations.get(activation)
    if isinstance(activation, keras.layers.Layer):
        return activation
    if gaussian.shaping_epsilon(activation, depth, eta) == float("inf"):
        return activations.GaussianPoincare(activation)
    return activations.DepthShaped(activation, depth, eta)
