"""The networks that the command trains, with their optimizers."""

from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_bsnn import datasets, models
from keras_bsnn.layers import DepthStack
from keras_bsnn.optimizers import StiefelMuon


class Network(NamedTuple):
    """A kind of deep network.

    Attributes:
        make: A function of `keras_bsnn.models`.
        activation: The one that it gets by default.
        options: The names of further arguments of the command that it takes.
        optimizer: The class of its optimizer.
        learning_rate: The one by default.
    """

    make: Callable
    activation: str
    options: tuple[str, ...] = ("eta",)
    optimizer: type = StiefelMuon
    learning_rate: float = 0.05  # at any depth and width


MODELS = {
    "bsnn": Network(models.bsnn_mlp, "gelu"),
    "batchnorm": Network(models.batchnorm_mlp, "tanh"),
    "roaf": Network(
        models.roaf_mlp, "relu", ("c", "filter"), keras.optimizers.Adam, 0.01
    ),
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
    return keras.Sequential(
        [
            keras.Input(image_set.shape),
            keras.layers.Flatten(),
            keras.layers.Dense(args.units, activation),
            DepthStack(keras.layers.Dense(args.units, activation), args.depth),
            keras.layers.Dense(image_set.classes),
        ]
    )


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
    model: keras.Model, optimizer: keras.optimizers.Optimizer, args: Namespace
) -> keras.Model:
    """The model, to be trained to classify."""
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=args.jit,
    )
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces twice
    return model
