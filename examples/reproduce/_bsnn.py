"""What the scripts on self-normalizing networks share: recipes, data, one training."""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_bsnn import activations, datasets, diagnostics, models
from keras_bsnn._record import environment, fill
from keras_bsnn.callbacks import Retract
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.ops import orthogonal
from keras_bsnn.optimizers import StiefelMuon

RESULTS = Path(__file__).parents[1] / "results"
EVALUATION_BATCH = 500


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


def network(recipe, form, depth, units, image_set, seed):
    """The network of a recipe with an activation in a form, as `"gp_relu"`, `"relu"`.

    The recipes of the authors differ from their code in one thing: the columns are
    divided by their norm after each step, not in each forward pass. To first order in
    the learning rate that is the same.
    """
    if recipe.kernels == "best":
        return models.bsnn_mlp(
            depth,
            units,
            FUNCTIONS[form.removeprefix("gp_")],
            classes=image_set.classes,
            eta=recipe.eta,
            input_shape=image_set.shape,
            seed=seed,
            tangent_gradient=False,  # the optimizer projects
        )
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
            keras.Input(image_set.shape),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation, kernel_initializer=first),
            DepthStack(block, depth),
            keras.layers.Dense(image_set.classes, kernel_initializer=last),
        ]
    )


def authors_activation(form):
    """The plain function, or with `gp_` its normalized form with the paper's root."""
    name = form.removeprefix("gp_")
    if name == form:
        # An object of ours is known to be pointwise, and so has the fast gradient.
        return activations.Gained(FUNCTIONS[name], 1.0)
    return activations.GaussianPoincare(FUNCTIONS[name], PAPERS_ROOT[name])


def optimizer(recipe, learning_rate, steps):
    """The authors' plain SGD, or ours with 5 % warm-up and cosine decay."""
    if recipe.kernels != "best":
        return keras.optimizers.SGD(learning_rate, momentum=0.5)
    return StiefelMuon(warm_up_and_decay(learning_rate, steps))


def warm_up_and_decay(learning_rate, steps):
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=learning_rate,
        warmup_steps=max(1, steps // 20),
        decay_steps=steps - steps // 20,
    )


def compile_model(model, optimizer):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )


def load(dataset, batch_size, validate, seed):
    """Batches to fit, and what to evaluate on: test data, or a tenth held out."""
    fit, held_out = ("train[:90%]", "train[90%:]") if validate else ("train", "test")
    return {
        "fit": datasets.load(dataset, fit, batch_size, seed=seed),
        "train": datasets.load(dataset, fit, EVALUATION_BATCH, shuffle=False),
        "held_out": datasets.load(dataset, held_out, EVALUATION_BATCH, shuffle=False),
    }


class Clock(keras.callbacks.Callback):
    """Evaluates after every `every` steps; its seconds are those of training alone.

    Args:
        data: what to evaluate on.
        every: number of steps.
        until: an accuracy at which training stops, or `None`.
        limit: seconds after which it stops, or `None`.
    """

    def __init__(self, data, every, until=None, limit=None):
        super().__init__()
        self.data, self.every, self.until, self.limit = data, every, until, limit
        self.curve = []

    def on_train_begin(self, logs=None):
        self.steps = 0
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps % self.every == 0:
            self.evaluate(logs)

    def evaluate(self, logs):
        pause = time.perf_counter()
        seconds = pause - self.begin
        accuracy = evaluate(self.model, self.data)
        loss = significant(logs["loss"])
        self.curve.append(
            {
                "step": self.steps,
                "seconds": round(seconds, 1),
                "loss": loss,
                "accuracy": accuracy,
            }
        )
        reached = self.until is not None and accuracy >= self.until
        late = self.limit is not None and seconds >= self.limit
        self.model.stop_training = reached or late or not np.isfinite(logs["loss"])
        self.begin += time.perf_counter() - pause


def train(recipe, form, depth, units, dataset, epochs, seed, validate=False):
    """Trains a network, evaluating after each epoch; returns its norms and accuracies.

    Largest and smallest norms are those of every layer but the logits.
    """
    keras.utils.set_random_seed(seed)
    data = load(dataset, recipe.batch_size, validate, seed)
    model = network(recipe, form, depth, units, datasets.IMAGE_SETS[dataset], seed)
    steps = len(data["fit"]) * epochs
    compile_model(model, optimizer(recipe, recipe.learning_rate, steps))
    clock = Clock(data["held_out"], every=len(data["fit"]))
    model.fit(
        data["fit"],
        epochs=epochs,
        shuffle=False,  # the pipeline does
        verbose=0,
        callbacks=[clock, *([] if recipe.kernels == "unit_norm" else [Retract()])],
    )
    norms = signal_norms(model, dataset, seed)
    found = {
        "train": evaluate(model, data["train"]),
        "held_out": evaluate(model, data["held_out"]),
        "largest_over_smallest_norm": signal_spread(norms),
        "orthogonality_error": orthogonality_error(model),
        "seconds": clock.curve[-1]["seconds"],
        "curve": clock.curve,
    }
    return norms, found


def evaluate(model, data):
    """Accuracy, in a loop of its own: `evaluate` within `fit` would reset its state."""
    right = total = 0
    for images, labels in data.as_numpy_iterator():
        predicted = np.argmax(model.predict_on_batch(images), axis=-1)
        right += int(np.sum(predicted == labels))
        total += len(labels)
    return round(right / total, 4)


def signal_norms(model, dataset, seed):
    """Of each layer, on a batch of training data."""
    batch = next(iter(datasets.load(dataset, "train", 128, seed=seed)))
    return diagnostics.signal_norms(model, *batch)


def signal_spread(norms):
    """Largest over smallest norm of all layers but the logits."""
    curves = {"forward": norms.forward[:-1], "gradient": norms.gradient[:-1]}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: significant(max(c) / min(c)) for name, c in curves.items()}


def orthogonality_error(model):
    """The largest of the hidden kernels, whether they are constrained or not."""
    (stack,) = (layer for layer in model.layers if isinstance(layer, DepthStack))
    errors = orthogonal.orthogonality_error(stack.weights[0])
    return significant(float(keras.ops.max(errors)))


def significant(value):
    """Three digits; what is not finite as text, which JSON can hold."""
    return float(f"{value:.3g}") if np.isfinite(value) else str(value)


def settings(args):
    """The arguments that tell what was computed, not where it is written."""
    places = ("out", "figure", "readme", "show")
    return {key: value for key, value in vars(args).items() if key not in places}


def write(path, **record):
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**environment(), **record}
    path.write_text(json.dumps(record, indent=1, default=str) + "\n")


def show(title, heads, rows):
    """Prints a table whose first column is text."""
    table = Table(title=title)
    for k, head in enumerate(heads):
        table.add_column(head, justify="right" if k else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)


def publish(args, script, title, heads, rows):
    """Prints a table, and writes it into the file that `--readme` names."""
    rows = [*rows]
    show(title, heads, rows)
    if args.readme:
        fill(args.readme, script, markdown(heads, rows))


def markdown(heads, rows):
    lines = (heads, ["---", *["---:"] * (len(heads) - 1)], *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parser(doc):
    """A parser with the arguments that all scripts take."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--dataset", default="mnist", choices=datasets.IMAGE_SETS)
    parser.add_argument("--depth", type=int, default=200)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--threads", type=int, help="of one operation; default: all")
    parser.add_argument(
        "--show", action="store_true", help="what is there, no training"
    )
    parser.add_argument("--readme", help="a file whose marked table to write anew")
    return parser


def use_threads(count):
    if count and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
