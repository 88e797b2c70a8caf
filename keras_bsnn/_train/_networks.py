"""The networks that the command trains, with their optimizers."""

from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_bsnn import datasets, models
from keras_bsnn.layers import DepthStack
from keras_bsnn.models import _stem
from keras_bsnn.optimizers import StiefelMuon

BACKEND = keras.backend.backend()


class Network(NamedTuple):
    """A kind of deep network.

    The fields `DEFAULTS` are arguments of the command that depend on it.

    Attributes:
        make: A function of `keras_bsnn.models`.
        activation: The one that it gets by default.
        options: The names of further arguments of the command that it takes.
        optimizer: The class of its optimizer.
        learning_rate: The one by default.
        units: The width of a layer by default; of a CNN, its filters.
        c: What the function calls so.
        filter: What the function calls so.
        is_cnn: Whether its layers are convolutions.
        is_normalized: Whether it has batch normalization.
    """

    make: Callable
    activation: str
    options: tuple[str, ...] = ("eta",)
    optimizer: type = StiefelMuon
    learning_rate: float = 0.05  # at any depth and width
    units: int = 128
    c: float = 3.0
    filter: str = "haar"
    is_cnn: bool = False
    is_normalized: bool = False


DEFAULTS = ("activation", "learning_rate", "units", "c", "filter")
BSNN = Network(models.bsnn_mlp, "gelu")
BATCHNORM = Network(models.batchnorm_mlp, "tanh", is_normalized=True)
ROAF = Network(
    models.roaf_mlp,
    "relu",
    options=("c", "filter"),
    optimizer=keras.optimizers.Adam,
    learning_rate=0.01,
)


def _cnn(network, make, activation, **changed):
    """The network of convolutions that goes with one of dense layers."""
    return network._replace(
        make=make, activation=activation, units=16, is_cnn=True, **changed
    )


MODELS = {
    "bsnn": BSNN,
    "batchnorm": BATCHNORM,
    "roaf": ROAF,
    "bsnn_cnn": _cnn(BSNN, models.bsnn_cnn, "relu", learning_rate=0.1),
    "batchnorm_cnn": _cnn(BATCHNORM, models.batchnorm_cnn, "tanh"),
    "roaf_cnn": _cnn(ROAF, models.roaf_cnn, "tanh", c=1.0, filter="permutation"),
}


def deep_network(args: Namespace) -> keras.Model:
    """The network that the arguments ask for."""
    image_set = datasets.IMAGE_SETS[args.dataset]
    network = MODELS[args.model]
    return network.make(
        args.depth,
        args.units,
        args.activation,
        image_set.classes,
        input_shape=image_set.shape,
        seed=args.seed,
        **{name: getattr(args, name) for name in network.options},
    )


def plain_network(args: Namespace) -> keras.Model:
    """One of the same size, of Glorot weights and a plain activation."""
    activation = args.activation.removeprefix("gp_")
    image_set = datasets.IMAGE_SETS[args.dataset]
    parts = _convolutions if MODELS[args.model].is_cnn else _dense
    return keras.Sequential(
        [
            keras.Input(image_set.shape),
            *parts(args, activation, image_set.shape),
            keras.layers.Dense(image_set.classes),
        ]
    )


def _dense(args, activation, shape):
    return [
        keras.layers.Flatten(),
        keras.layers.Dense(args.units, activation),
        DepthStack(keras.layers.Dense(args.units, activation), args.depth),
    ]


def _convolutions(args, activation, shape):
    """Behind the same stem, with edges of zeros, as convolutions of Keras have them."""
    block = keras.layers.Conv2D(args.units, 3, padding="same", activation=activation)
    return [
        *_stem.layers(None, shape, args.seed),
        keras.layers.Conv2D(args.units, 1, activation=activation),
        DepthStack(block, args.depth),
        keras.layers.Flatten(),
    ]


def optimizer(batches: int, args: Namespace) -> keras.optimizers.Optimizer:
    """The network's own, whose rate rises and falls over so many batches an epoch."""
    steps = args.epochs * batches
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=args.learning_rate,
        warmup_steps=max(1, steps // 20),
        decay_steps=steps - steps // 20,
    )
    return MODELS[args.model].optimizer(schedule)


def compiled(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    args: Namespace,
    is_plain: bool = False,
) -> keras.Model:
    """The model, to be trained to classify.

    A plain CNN is many times slower with XLA on processors, and TensorFlow needs none.
    """
    is_slow = is_plain and MODELS[args.model].is_cnn
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=args.jit and not (is_slow and BACKEND == "tensorflow"),
    )
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces twice
    return model
