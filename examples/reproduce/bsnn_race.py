"""How long until 95 % on test data: our recipe against the authors', same activation.

    python examples/reproduce/bsnn_race.py --dataset mnist --threads 1

For each activation, in one process: first ours, then the authors' recipe until it is
there or has taken `--limit` times as long. Seconds are those of training with its
compilation, without the evaluations. Learning rate, `--eta`, batch size and the epochs
of the schedule are those of ours, chosen for so few steps, as is `--every`, the steps
to an evaluation.
"""

import math

import _bsnn
import _training
import keras
from _bsnn import FUNCTIONS, RECIPES
from _runner import Choice, Experiment, markdown


def run(args, row):
    changes = {k: getattr(args, k) for k in ("learning_rate", "batch_size", "eta")}
    best = raced(RECIPES["best"]._replace(**changes), row, args, limit=None)
    limit = args.limit * best["curve"][-1]["seconds"]
    return {"best": best, "authors": raced(RECIPES["authors"], row, args, limit)}


def raced(recipe, name, args, limit):
    keras.utils.set_random_seed(args.seed)
    data = _training.load(args.dataset, recipe.batch_size, False, args.seed)
    size = (args.depth, args.width, args.dataset, args.seed)
    model = _bsnn.network(recipe, f"gp_{name}", *size)
    optimizer = _bsnn.optimizer(recipe, round(len(data["fit"]) * args.epochs))
    # The authors' recipe takes longer, and smaller steps.
    epochs = math.ceil(args.epochs) if limit is None else 10**6
    clock = {"every": args.every if limit is None else 80 * args.every, "limit": limit}
    curve = _training.fit(model, optimizer, data, epochs, until=args.accuracy, **clock)
    reached = curve[-1]["accuracy"] >= args.accuracy
    return {"reached": reached, **recipe._asdict(), "curve": curve}


def table(records):
    lines = []
    for row in records:
        ours, theirs = (row[recipe]["curve"][-1] for recipe in ("best", "authors"))
        time = f"{ours['seconds']:.0f} s" if row["best"]["reached"] else "not reached"
        more = "" if row["authors"]["reached"] else "> "
        cells = [row["row"], time, f"{more}{theirs['seconds']:.0f} s"]
        cells += [f"{more}{theirs['seconds'] / ours['seconds']:.1f}"]
        lines.append([*cells, f"{theirs['accuracy']:.4f}"])
    heads = ("", "ours", "authors' recipe", "ratio", "accuracy of theirs then")
    return markdown(heads, lines)


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows={"row": "rows"},
        options={
            **_training.images(),
            **{"rows": Choice(FUNCTIONS), "accuracy": 0.95, "limit": 10.0},
            **{"learning_rate": 0.2, "eta": 0.3, "epochs": 1.0, "every": 5, "seed": 0},
            "batch_size": RECIPES["best"].batch_size,
        },
    ).main()
