"""What the scripts on self-normalizing networks share: recipes, and one training."""

from typing import NamedTuple

import _training
import keras
import numpy as np
from _runner import significant

from keras_bsnn import activations, models
from keras_bsnn.callbacks import Retract
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.ops import orthogonal
from keras_bsnn.optimizers import StiefelMuon


def leaky_relu(x):
    return keras.ops.leaky_relu(x, negative_slope=0.01)


def gelu_by_sigmoid(x):
    return x * keras.ops.sigmoid(1.702 * x)


FUNCTIONS = {
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": leaky_relu,
    "elu": "elu",
    "selu": "selu",
    "gelu": gelu_by_sigmoid,
}
PAPERS_ROOT = dict.fromkeys(FUNCTIONS, "plus") | {"gelu": "minus"}


class Recipe(NamedTuple):
    """How a network is made and trained.

    Attributes:
        kernels: `"unit_norm"`, `"orthogonal"`, or `"best"` for `bsnn_mlp`.
        batch_size, learning_rate: of the training.
        eta: of the shaped activation of `"best"`.
    """

    kernels: str
    batch_size: int
    learning_rate: float
    eta: float | None = None


RECIPES = {
    "authors": Recipe("unit_norm", 64, 1e-4),
    "orthogonal": Recipe("orthogonal", 64, 1e-4),
    "best": Recipe("best", 1024, 0.1, eta=0.15),
}


def network(recipe, form, depth, units, dataset, seed):
    """The network of a recipe with an activation in a form, as `"gp_relu"`, `"relu"`.

    The recipes of the authors differ from their code in one thing: the columns are
    divided by their norm after each step, not in each forward pass. To first order in
    the learning rate that is the same.
    """
    data = _training.shape_of(dataset)
    if recipe.kernels == "best":
        function = FUNCTIONS[form.removeprefix("gp_")]
        kwargs = {"eta": recipe.eta, "seed": seed}
        return models.bsnn_mlp(depth, units, function, **data, **kwargs)
    activation = authors_activation(form)
    constraint = {
        "unit_norm": keras.constraints.UnitNorm(axis=0),
        "orthogonal": Orthogonal(steps=1, tolerance=5e-5),
    }[recipe.kernels]
    seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
    first, hidden, last = (HaarOrthogonal(seed=s) for s in seeds)
    block = OrthogonalDense(
        units,
        activation,
        use_bias=False,
        kernel_initializer=hidden,
        kernel_constraint=constraint,
        tangent_gradient=recipe.kernels == "orthogonal",
    )
    return keras.Sequential(
        [
            keras.Input(data["input_shape"]),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation, kernel_initializer=first),
            DepthStack(block, depth),
            keras.layers.Dense(data["classes"], kernel_initializer=last),
        ]
    )


def authors_activation(form):
    """The plain function, or with `gp_` its normalized form with the paper's root."""
    name = form.removeprefix("gp_")
    if name == form:
        # An object of ours is known to be pointwise, and so has the fast gradient.
        return activations.Gained(FUNCTIONS[name], 1.0)
    return activations.GaussianPoincare(FUNCTIONS[name], PAPERS_ROOT[name])


def optimizer(recipe, steps):
    """The authors' plain SGD, or ours with 5 % warm-up and cosine decay."""
    if recipe.kernels != "best":
        return keras.optimizers.SGD(recipe.learning_rate, momentum=0.5)
    return StiefelMuon(_training.warm_up_and_decay(recipe.learning_rate, steps))


def train(recipe, form, depth, units, dataset, epochs, seed, validate=False):
    """Trains a network, evaluating after each epoch; returns its norms and accuracies.

    Largest and smallest norms are those of every layer but the logits.
    """
    keras.utils.set_random_seed(seed)
    data = _training.load(dataset, recipe.batch_size, validate, seed)
    model = network(recipe, form, depth, units, dataset, seed)
    retract = [] if recipe.kernels == "unit_norm" else [Retract()]
    steps = len(data["fit"]) * epochs
    curve = _training.fit(model, optimizer(recipe, steps), data, epochs, retract)
    norms = _training.signal_norms(model, dataset, seed)
    # Of the hidden kernels, whether they are constrained or not.
    errors = orthogonal.orthogonality_error(_training.stack_of(model).weights[0])
    return norms, {
        **recipe._asdict(),
        "train": _training.evaluate(model, data["train"]),
        "held_out": _training.evaluate(model, data["held_out"]),
        "largest_over_smallest_norm": {
            "forward": spread(norms.root_mean_square),
            "gradient": spread(norms.gradient),
        },
        "orthogonality_error": significant(keras.ops.max(errors)),
        "seconds": curve[-1]["seconds"],
        "curve": curve,
    }


def spread(norms):
    """Largest over smallest norm of all layers but the logits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return significant(np.max(norms[:-1]) / np.min(norms[:-1]))
