"""How long until 95 % on test data: our recipe against the authors', same activation.

    python examples/reproduce/bsnn_race.py --dataset mnist --threads 1

For each activation, in one process: first ours, then the authors' recipe until it is
there or has taken `--limit` times as long. Seconds are those of training with its
compilation, without the evaluations. It leaves a JSON, to which `--rows` adds.
"""

import json
import math
from pathlib import Path

import _bsnn
import _script
import _training
import keras
from _bsnn import FUNCTIONS, RECIPES

from keras_bsnn import datasets

HEADS = ("", "ours", "authors' recipe", "ratio", "accuracy of theirs then")


def main():
    args = arguments()
    _script.use_threads(args.threads)
    found = json.loads(args.out.read_text())["result"] if args.out.exists() else {}
    for name in [] if args.show else args.rows:
        if name not in found:
            found[name] = race(name, args)
            _script.write(args.out, settings=_script.settings(args), result=found)
    title = f"{args.dataset}: time to {args.accuracy:.0%} on test data"
    _script.publish(args, "reproduce/bsnn_race.py", title, HEADS, contents(found))


def arguments():
    parser = _script.parser(__doc__)
    add = parser.add_argument
    add("--rows", nargs="+", choices=FUNCTIONS, default=[*FUNCTIONS])
    add("--accuracy", type=float, default=0.95)
    add("--limit", type=float, default=10, help="times that of ours")
    add("--learning-rate", type=float, default=0.2, help="of ours, for so few steps")
    add("--eta", type=float, default=0.3, help="of ours, for so few steps")
    add("--batch-size", type=int, default=RECIPES["best"].batch_size, help="of ours")
    add("--epochs", type=float, default=1.0, help="of our schedule")
    add("--every", type=int, default=5, help="steps to an evaluation of ours")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=_script.RESULTS / "bsnn_race.json")
    return parser.parse_args()


def race(name, args):
    recipe = RECIPES["best"]._replace(
        learning_rate=args.learning_rate, batch_size=args.batch_size, eta=args.eta
    )
    best = run(recipe, name, args, limit=None)
    seconds = best["curve"][-1]["seconds"]
    authors = run(RECIPES["authors"], name, args, limit=args.limit * seconds)
    return {"best": best, "authors": authors}


def run(recipe, name, args, limit):
    keras.utils.set_random_seed(args.seed)
    data = _training.load(args.dataset, recipe.batch_size, False, args.seed)
    image_set = datasets.IMAGE_SETS[args.dataset]
    form = f"gp_{name}"
    model = _bsnn.network(recipe, form, args.depth, args.width, image_set, args.seed)
    steps = round(len(data["fit"]) * args.epochs)
    _training.compile_model(model, _bsnn.optimizer(recipe, recipe.learning_rate, steps))
    # The authors' recipe takes longer, and smaller steps.
    every = args.every if limit is None else 80 * args.every
    clock = _training.Clock(data["held_out"], every, args.accuracy, limit)
    epochs = math.ceil(args.epochs) if limit is None else 10**6
    model.fit(data["fit"], epochs=epochs, shuffle=False, verbose=0, callbacks=[clock])
    reached = clock.curve[-1]["accuracy"] >= args.accuracy
    return {"reached": reached, **recipe._asdict(), "curve": clock.curve}


def contents(found):
    for name, runs in found.items():
        ours, theirs = (runs[recipe]["curve"][-1] for recipe in ("best", "authors"))
        more = "" if runs["authors"]["reached"] else "> "
        yield (
            name,
            f"{ours['seconds']:.0f} s" if runs["best"]["reached"] else "not reached",
            f"{more}{theirs['seconds']:.0f} s",
            f"{more}{theirs['seconds'] / ours['seconds']:.1f}",
            f"{theirs['accuracy']:.4f}",
        )


if __name__ == "__main__":
    main()
