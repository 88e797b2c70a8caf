"""The table of accuracies of the BSNN paper, row by row, beside two recipes of ours.

    python examples/reproduce/bsnn_table.py --dataset mnist --epochs 5 --recipes best
    python examples/reproduce/bsnn_table.py --show

`authors` keeps unit-norm columns, `orthogonal` is the same with orthogonal kernels,
`best` is `bsnn_mlp` (depth-shaped, stable root) with `StiefelMuon`. Learning rate and
batch size are those of the recipe unless they are given; with `--validate` a tenth of
the training data is held out.

Source of the table: Lu, Gould, Ajanthan, arXiv 2006.12169.
"""

import itertools

import _bsnn
import _training
import numpy as np
from _bsnn import FUNCTIONS, RECIPES
from _runner import Choice, Experiment, markdown

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


def rows(args):
    """Ours has normalized forms only."""
    for seed, name, form in itertools.product(args.seeds, args.recipes, args.rows):
        if name != "best" or form.startswith("gp_"):
            yield {
                **{"dataset": args.dataset, "recipe": name, "form": form},
                **{"depth": args.depth, "width": args.width, "epochs": args.epochs},
                "learning_rate": args.learning_rate or RECIPES[name].learning_rate,
                "batch_size": args.batch_size or RECIPES[name].batch_size,
                **{"seed": seed, "validation": args.validate},
            }


def run(args, dataset, validation, seed, recipe, form, depth, width, epochs, **changes):
    recipe = RECIPES[recipe]._replace(**changes)
    size = (depth, width, dataset, epochs, seed, validation)
    return _bsnn.train(recipe, form, *size)[1]


def table(records):
    """One for each data set and size."""
    groups = {}
    for row in records:
        key = ("dataset", "validation", "depth", "width")
        groups.setdefault(tuple(row[k] for k in key), []).append(row)
    texts = []
    for (dataset, validation, depth, width), members in groups.items():
        held_out = "validation" if validation else "test"
        title = f"{dataset}, {depth} x {width}: train / {held_out} accuracy in %"
        texts.append(f"**{title}**\n\n{table_of(members, dataset == 'mnist')}")
    return "\n\n".join(texts)


def table_of(members, with_paper):
    columns = sorted({(row["recipe"], row["epochs"]) for row in members})
    heads = ["", *["paper, 200 x 500, 50 epochs"] * with_paper]
    heads += [f"{name}, {n} {'epoch' if n == 1 else 'epochs'}" for name, n in columns]
    lines = []
    for form in FORMS:
        rows = [row for row in members if row["form"] == form]
        if rows:
            paper = [f"{a:.2f} / {b:.2f}" for a, b in [PAPER[form]] if with_paper]
            cells = [cell(rows, *column) for column in columns]
            lines.append([form, *paper, *cells, norms(rows)])
    return markdown([*heads, "best: norms, max/min"], lines)


def cell(rows, recipe, epochs):
    """Mean over seeds, with the standard deviation where there are several."""
    rows = [r for r in rows if (r["recipe"], r["epochs"]) == (recipe, epochs)]
    return " / ".join(
        spread([row[which] for row in rows]) for which in ("train", "held_out") if rows
    )


def norms(rows):
    """Largest over smallest norm of any layer, forward and of the gradient."""
    spreads = [r["largest_over_smallest_norm"] for r in rows if r["recipe"] == "best"]
    names = ("forward", "gradient") if spreads else ()
    return ", ".join(f"{max(float(s[n]) for s in spreads):.2f}" for n in names)


def spread(values):
    mean = f"{100 * np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}"


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows,
        options={
            **_training.images(),
            **{"epochs": 5, "rows": Choice(FORMS), "recipes": Choice(RECIPES)},
            **{"seeds": [0], "validate": False},
            **{"learning_rate": float, "batch_size": int},
        },
        record="bsnn_table",
    ).main()
