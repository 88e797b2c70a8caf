"""The table of accuracies of the BSNN paper, row by row, beside two recipes of ours.

    python examples/reproduce/bsnn_table.py --dataset mnist --epochs 5 --recipes best
    python examples/reproduce/bsnn_table.py --show

Each row is a training and leaves a JSON in `--out`; rows that are there are passed
over, so the command resumes. `authors` keeps unit-norm columns, `orthogonal` is the
same with orthogonal kernels, `best` is `bsnn_mlp` (depth-shaped, stable root) with
`StiefelMuon`.

Source of the table: Lu, Gould, Ajanthan, arXiv 2006.12169.
"""

import json
from pathlib import Path

import _bsnn
import _script
import numpy as np
from _bsnn import FUNCTIONS, RECIPES

from keras_bsnn import _record

FORMS = [prefix + name for name in FUNCTIONS for prefix in ("", "gp_")]
# Accuracies in %, of the training and the test data of MNIST, without batch norm:
# 200 layers of 500 units after 50 epochs.
PAPER = {
    "tanh": (99.05, 96.57),
    "gp_tanh": (99.81, 95.54),
    "relu": (11.24, 11.35),
    "gp_relu": (33.28, 28.13),
    "leaky_relu": (11.24, 11.35),
    "gp_leaky_relu": (43.17, 49.28),
    "elu": (99.06, 95.41),
    "gp_elu": (100.00, 96.56),
    "selu": (99.86, 97.33),
    "gp_selu": (99.92, 96.97),
    "gelu": (11.24, 11.35),
    "gp_gelu": (97.67, 95.82),
}


def main():
    args = arguments()
    _script.use_threads(args.threads)
    if not args.show:
        for recipe, form, seed in rows(args):
            path = args.out / file_name(args, recipe, form, seed)
            if not path.exists():
                train_row(args, recipe, form, seed, path)
    found = read(args.out)
    for table in contents(found):
        _script.show(*table)
    if args.readme:
        _record.fill(args.readme, "reproduce/bsnn_table.py", markdown(found))


def arguments():
    parser = _script.parser(__doc__)
    add = parser.add_argument
    add("--epochs", type=int, default=5)
    add("--rows", nargs="+", choices=FORMS, help="default: all that a recipe has")
    add("--recipes", nargs="+", choices=RECIPES, default=[*RECIPES])
    add("--seeds", nargs="+", type=int, default=[0])
    add("--learning-rate", type=float, help="default: that of the recipe")
    add("--batch-size", type=int, help="default: that of the recipe")
    add("--validate", action="store_true", help="hold out a tenth of the training data")
    add("--out", type=Path, default=_script.RESULTS / "bsnn_table")
    return parser.parse_args()


def rows(args):
    """Recipe, form and seed of each; ours has normalized forms only."""
    for seed in args.seeds:
        for name in args.recipes:
            for form in args.rows or FORMS:
                if name != "best" or form.startswith("gp_"):
                    yield name, form, seed


def file_name(args, recipe, form, seed):
    held_out = "-validation" if args.validate else ""
    tuned = "".join(
        f"-{mark}{value:g}"
        for mark, value in (("r", args.learning_rate), ("b", args.batch_size))
        if value is not None
    )
    network = f"{args.depth}x{args.width}-{args.epochs}epochs{tuned}-seed{seed}"
    return f"{args.dataset}{held_out}-{recipe}-{form}-{network}.json"


def train_row(args, name, form, seed, path):
    recipe = RECIPES[name]
    recipe = recipe._replace(
        batch_size=args.batch_size or recipe.batch_size,
        learning_rate=args.learning_rate or recipe.learning_rate,
    )
    size = (args.depth, args.width, args.dataset, args.epochs, seed, args.validate)
    _, found = _bsnn.train(recipe, form, *size)
    row = {
        **{"dataset": args.dataset, "recipe": name, "form": form, "seed": seed},
        **{"depth": args.depth, "width": args.width, "epochs": args.epochs},
        **{"validation": args.validate, **recipe._asdict(), **found},
    }
    _script.write(path, result=row)
    print(path.name, row["train"], row["held_out"], flush=True)


def read(folder):
    return [json.loads(p.read_text())["result"] for p in sorted(folder.glob("*.json"))]


def contents(found):
    """Title, heads and rows of the table of each data set and size."""
    groups = {}
    for row in found:
        key = ("dataset", "validation", "depth", "width")
        groups.setdefault(tuple(row[k] for k in key), []).append(row)
    for (dataset, validation, depth, width), members in groups.items():
        held_out = "validation" if validation else "test"
        title = f"{dataset}, {depth} x {width}: train / {held_out} accuracy in %"
        yield title, *table(members, dataset == "mnist")


def table(members, with_paper):
    columns = sorted({column(row) for row in members}, key=str)
    paper = ["paper, 200 x 500, 50 epochs"] if with_paper else []
    heads = [
        "",
        *paper,
        *(f"{name}, {n} {'epoch' if n == 1 else 'epochs'}" for name, n in columns),
    ]
    rows = []
    for form in FORMS:
        cells = [cell(members, form, c) for c in columns]
        if any(cells):
            known = [f"{a:.2f} / {b:.2f}" for a, b in [PAPER[form]] if with_paper]
            rows.append([form, *known, *cells, norms(members, form)])
    return [*heads, "best: norms, max/min"], rows


def column(row):
    return row["recipe"], row["epochs"]


def cell(members, form, of_column):
    """Mean over seeds, with the standard deviation where there are several."""
    rows = [r for r in members if r["form"] == form and column(r) == of_column]
    return " / ".join(
        spread([r[which] for r in rows]) for which in ("train", "held_out") if rows
    )


def norms(members, form):
    """Largest over smallest norm of any layer, forward and of the gradient."""
    rows = [r for r in members if r["form"] == form and r["recipe"] == "best"]
    spreads = [r["largest_over_smallest_norm"] for r in rows]
    names = ("forward", "gradient") if rows else ()
    return ", ".join(f"{max(float(s[n]) for s in spreads):.2f}" for n in names)


def spread(values):
    mean = f"{100 * np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}"


def markdown(found):
    tables = contents(found)
    return "\n\n".join(f"**{t}**\n\n{_script.markdown(*rest)}" for t, *rest in tables)


if __name__ == "__main__":
    main()
