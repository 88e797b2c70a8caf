"""Accuracies of deep networks with batch normalization, in evaluation as in training.

    python examples/reproduce/batchnorm_table.py --rows identity --depth 1000
    python examples/reproduce/batchnorm_table.py --show

Held-out accuracy is measured three times: with the statistics of each batch, with the
moving averages of training, and with those of `recalibrate`, from `--samples` samples.
The recipe `best` is `batchnorm_mlp` with `StiefelMuon`; `paper` has SGD and no
retraction. Learning rate and gain are the recipe's and the paper's unless they are
given; with `--validate` a tenth of the training data is held out.

Source of the paper's values: Meterez et al., arXiv 2310.02012, read off its figures.
"""

import itertools

import _training
import keras
from _runner import Choice, Experiment, columns

from keras_bsnn import models
from keras_bsnn.callbacks import Retract
from keras_bsnn.initializers import DepthDecay
from keras_bsnn.optimizers import StiefelMuon
from keras_bsnn.recalibration import recalibrate

# Test accuracies in % of the paper, for a data set, an activation and a depth: the last
# ones of the identity, in evaluation, and the best ones of tanh and sin.
PAPER = {
    ("mnist", "identity", 100): 89.1,
    ("mnist", "identity", 500): 10.9,
    ("mnist", "identity", 1000): 9.7,
    ("mnist", "tanh", 1000): 97.8,
    ("mnist", "sin", 1000): 97.8,
    ("fashion_mnist", "identity", 1000): 10.0,
    ("fashion_mnist", "tanh", 1000): 88.2,
    ("fashion_mnist", "sin", 1000): 88.4,
}
ACTIVATIONS = {"identity": None, "tanh": "tanh", "sin": "sin", "relu": "relu"}
MODES = ("batch statistics", "moving averages", "recalibrated")
RATES = {"paper": 1e-3, "best": 0.1}


def rows(args):
    same = ("dataset", "recipe", "depth", "width", "batch_size", "epochs")
    common = {key: getattr(args, key) for key in (*same, "shrinkage", "gain")}
    common["learning_rate"] = args.learning_rate or RATES[args.recipe]
    for row, seed in itertools.product(args.rows, args.seeds):
        yield {**common, "row": row, "seed": seed, "validation": args.validate}


def run(args, dataset, row, recipe, batch_size, epochs, seed, **more):
    keras.utils.set_random_seed(seed)
    data = _training.load(dataset, batch_size, args.validate, seed)
    is_ours, rate = recipe == "best", more["learning_rate"]
    papers_gain = DepthDecay() if row in ("tanh", "sin") else 1.0
    gain = papers_gain if more["gain"] is None else more["gain"]
    model = models.batchnorm_mlp(
        *(more["depth"], more["width"], ACTIVATIONS[row]),
        gain=gain,
        shrinkage=more["shrinkage"],
        retraction="newton_schulz" if is_ours else None,
        seed=seed,
        **_training.shape_of(dataset),
    )
    schedule = _training.warm_up_and_decay(rate, len(data["fit"]) * epochs)
    optimizer = StiefelMuon(schedule) if is_ours else keras.optimizers.SGD(rate)
    callbacks = [Retract()] if is_ours else []
    curve = _training.fit(model, optimizer, data, epochs, callbacks)
    held_out = data["held_out"]
    found = {
        "batch statistics": with_batch_statistics(model, held_out, batch_size),
        "moving averages": _training.evaluate(model, held_out),
    }
    recalibrate(model, data["fit"].take(args.samples // batch_size))
    found["recalibrated"] = _training.evaluate(model, held_out)
    found["train"] = _training.evaluate(model, data["train"])
    return {**found, "seconds": curve[-1]["seconds"], "curve": curve}


class InTraining(keras.Model):
    """A model that is always in training mode."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, inputs):
        return self.model(inputs, training=True)


def with_batch_statistics(model, data, size):
    """Accuracy in training mode, of a model that stays as it is."""
    weights = model.get_weights()  # the moving averages are among them
    batches = data.unbatch().batch(size, drop_remainder=True)
    accuracy = _training.evaluate(InTraining(model), batches)
    model.set_weights(weights)
    return accuracy


def ordered(records):
    keys = ("dataset", "row", "depth", "recipe", "shrinkage", "epochs", "seed")
    return sorted(records, key=lambda row: [row[key] for key in keys])


def name(row):
    recipe = "" if row["recipe"] == "best" else f", {row['recipe']} recipe"
    gain = f", gain {row['gain']:g}" if row.get("gain") else ""
    shrinkage = f", shrinkage {row['shrinkage']:g}" if row["shrinkage"] else ""
    seed = f", seed {row['seed']}" if row["seed"] else ""
    return f"{row['dataset']}, {row['row']}{recipe}{gain}{shrinkage}{seed}"


def paper(row):
    return str(PAPER.get((row["dataset"], row["row"], row["depth"]), ""))


def percent(key):
    return lambda row: f"{100 * row[key]:.2f}"


TABLE = {
    "": name,
    "layers x units": "{depth:,} x {width}",
    "batch, epochs": "{batch_size:,}, {epochs}",
    "minutes": lambda row: f"{row['seconds'] / 60:.0f}",
    **{mode: percent(mode) for mode in ("train", *MODES)},
    "paper": paper,
}


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows,
        arrange=ordered,
        options={
            **_training.images(depth=1000, width=100),
            **{"rows": Choice(ACTIVATIONS), "recipe": Choice(RATES, "best")},
            **{"epochs": 5, "batch_size": 100, "shrinkage": 0.0, "samples": 10_000},
            **{"learning_rate": float, "gain": float, "seeds": [0], "validate": False},
        },
        record="batchnorm_table",
    ).main()
