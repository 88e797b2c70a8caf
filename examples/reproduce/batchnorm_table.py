"""Accuracies of deep networks with batch normalization, in evaluation as in training.

    python examples/reproduce/batchnorm_table.py --rows identity --depth 1000
    python examples/reproduce/batchnorm_table.py --show

Each row is a training and leaves a JSON in `--out`; rows that are there are passed
over, so the command resumes. Held-out accuracy is measured three times: with the
statistics of each batch, with the moving averages of training, and with those of
`recalibrate`. The recipe `best` is `batchnorm_mlp` with `StiefelMuon`; `paper` has SGD
and no retraction.

Source of the paper's values: Meterez et al., arXiv 2310.02012, read off its figures.
"""

import json
from pathlib import Path
from typing import NamedTuple

import _script
import _training
import keras
import numpy as np

from keras_bsnn import _backend, datasets, models
from keras_bsnn._record import fill
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


class Recipe(NamedTuple):
    """How a network is trained.

    Attributes:
        retraction: as of `batchnorm_mlp`.
        learning_rate: with warm-up and cosine decay for `StiefelMuon`.
    """

    retraction: str | None
    learning_rate: float


RECIPES = {"paper": Recipe(None, 1e-3), "best": Recipe("newton_schulz", 0.1)}


def main():
    args = arguments()
    _script.use_threads(args.threads)
    for row in [] if args.show else args.rows:
        for seed in args.seeds:
            path = args.out / file_name(args, row, seed)
            if not path.exists():
                train(args, row, seed, path)
    found = [json.loads(p.read_text())["result"] for p in sorted(args.out.glob("*"))]
    heads = ("", "layers x units", "batch, epochs", "minutes", "train", *MODES, "paper")
    rows = [*contents(found)]
    _script.show("test accuracy in %", heads, rows)
    if args.readme:
        fill(args.readme, "reproduce/batchnorm_table.py", _script.markdown(heads, rows))


def arguments():
    parser = _script.parser(__doc__)
    parser.set_defaults(width=100, depth=1000)
    add = parser.add_argument
    add("--rows", nargs="+", choices=ACTIVATIONS, default=[*ACTIVATIONS])
    add("--recipe", choices=RECIPES, default="best")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=100)
    add("--learning-rate", type=float, help="default: that of the recipe")
    add("--gain", type=float, help="of every layer; default: the paper's")
    add("--shrinkage", type=float, default=0.0)
    add("--samples", type=int, default=10_000, help="of the recalibration")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--validate", action="store_true", help="hold out a tenth of the training data")
    add("--out", type=Path, default=_script.RESULTS / "batchnorm_table")
    return parser.parse_args()


def file_name(args, row, seed):
    held_out = "-validation" if args.validate else ""
    rate = "" if args.learning_rate is None else f"-r{args.learning_rate:g}"
    shrinkage = f"-s{args.shrinkage:g}" if args.shrinkage else ""
    shrinkage += "" if args.gain is None else f"-g{args.gain:g}"
    size = f"{args.depth}x{args.width}-b{args.batch_size}-{args.epochs}epochs"
    name = f"{args.dataset}{held_out}-{args.recipe}-{row}-{size}{rate}{shrinkage}"
    return f"{name}-seed{seed}.json"


def train(args, row, seed, path):
    keras.utils.set_random_seed(seed)
    recipe = RECIPES[args.recipe]
    recipe = recipe._replace(learning_rate=args.learning_rate or recipe.learning_rate)
    data = _training.load(args.dataset, args.batch_size, args.validate, seed)
    model = network(recipe, ACTIVATIONS[row], args, seed)
    steps = len(data["fit"]) * args.epochs
    _training.compile_model(model, optimizer(recipe, steps))
    clock = _training.Clock(data["held_out"], every=len(data["fit"]))
    model.fit(
        data["fit"],
        epochs=args.epochs,
        shuffle=False,  # the pipeline does
        verbose=0,
        callbacks=[clock, *([Retract()] if recipe.retraction else [])],
    )
    kept = ("dataset", "depth", "width", "epochs", "batch_size", "recipe")
    kept += ("shrinkage", "gain")
    result = {
        **{key: getattr(args, key) for key in kept},
        **{"row": row, "seed": seed, "validation": args.validate, **recipe._asdict()},
        **accuracies(model, data, args),
        "seconds": clock.curve[-1]["seconds"],
        "curve": clock.curve,
    }
    _script.write(path, settings=_script.settings(args), result=result)
    print(path.name, {k: result[k] for k in ("train", *MODES)}, flush=True)


def network(recipe, activation, args, seed):
    image_set = datasets.IMAGE_SETS[args.dataset]
    papers_gain = DepthDecay() if activation in ("tanh", "sin") else 1.0
    return models.batchnorm_mlp(
        args.depth,
        args.width,
        activation,
        image_set.classes,
        gain=papers_gain if args.gain is None else args.gain,
        shrinkage=args.shrinkage,
        input_shape=image_set.shape,
        retraction=recipe.retraction,
        seed=seed,
    )


def optimizer(recipe, steps):
    if recipe.retraction is None:
        return keras.optimizers.SGD(recipe.learning_rate)
    return StiefelMuon(_training.warm_up_and_decay(recipe.learning_rate, steps))


def accuracies(model, data, args):
    """Of the training data when recalibrated, and held out in the three modes."""
    held_out = data["held_out"]
    found = {
        "batch statistics": with_batch_statistics(model, held_out, args.batch_size),
        "moving averages": _training.evaluate(model, held_out),
    }
    recalibrate(model, data["fit"].take(args.samples // args.batch_size))
    found["recalibrated"] = _training.evaluate(model, held_out)
    return {"train": _training.evaluate(model, data["train"]), **found}


def with_batch_statistics(model, data, size):
    @_backend.traced_once
    def logits(images, trainable, others):
        return model.stateless_call(trainable, others, images, training=True)[0]

    values = [
        [_backend.read(v) for v in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    right = []
    for images, labels in data.unbatch().batch(size, drop_remainder=True):
        predicted = np.argmax(logits(images.numpy(), *values), axis=-1)
        right.append(np.mean(predicted == labels.numpy()))
    return round(float(np.mean(right)), 4)


def contents(found):
    keys = ("dataset", "row", "depth", "recipe", "shrinkage", "epochs", "seed")
    for row in sorted(found, key=lambda row: [row[key] for key in keys]):
        cells = (f"{100 * row[key]:.2f}" for key in ("train", *MODES))
        paper = PAPER.get((row["dataset"], row["row"], row["depth"]))
        yield (
            name(row),
            f"{row['depth']:,} x {row['width']}",
            f"{row['batch_size']:,}, {row['epochs']}",
            f"{row['seconds'] / 60:.0f}",
            *cells,
            "" if paper is None else f"{paper:.1f}",
        )


def name(row):
    recipe = "" if row["recipe"] == "best" else f", {row['recipe']} recipe"
    gain = f", gain {row['gain']:g}" if row.get("gain") else ""
    shrinkage = f", shrinkage {row['shrinkage']:g}" if row["shrinkage"] else ""
    seed = f", seed {row['seed']}" if row["seed"] else ""
    return f"{row['dataset']}, {row['row']}{recipe}{gain}{shrinkage}{seed}"


if __name__ == "__main__":
    main()
