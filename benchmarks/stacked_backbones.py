"""Which layers of the backbones of keras-hub become loops, and whether they are equal.

    python benchmarks/stacked_backbones.py --page docs/results/stacking.md

Each backbone is made from its configuration, with random weights, and stacked. A row
has the numbers of weights, what `report` says of the loops, and the largest difference
of outputs, relative to the largest output.
"""

import re
import sys
from pathlib import Path

import keras
from runner import Choice, Experiment, columns

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import _backbones
import stack_a_model

from keras_bsnn.stacking import stack_layers, unstack


def run(args, model, **_):
    size = _backbones.Size(layers=args.layers)
    keras.utils.set_random_seed(0)
    plain = _backbones.backbone(model, size)
    stacked = stack_layers(plain)
    x = _backbones.data(plain, size)
    found = stack_a_model.difference(stacked(x), plain(x))
    again = stack_a_model.difference(unstack(stacked)(x), plain(x))
    return {
        "weights": len(plain.weights),
        "stacked_weights": len(stacked.weights),
        "report": stacked.report.split("\n"),
        "relative_difference": found["largest_difference"] / found["largest_output"],
        "unstacked_difference": again["largest_difference"],
    }


def table(records):
    rows = [{**row, "loops": _loops(row["report"])} for row in records]
    return columns(
        {
            "": "{model}",
            "weights": "{weights}",
            "with loops": "{stacked_weights}",
            "loops": "{loops}",
            "difference": "{relative_difference:.0e}",
        }
    )(rows)


def _loops(report):
    """The lengths of the loops, in words."""
    found = [re.search(r": (\d+) equal parts( of (\d+) calls)?", x) for x in report]
    words = [
        f"{m[1]} parts of {m[3]} layers" if m[3] else f"{m[1]} layers"
        for m in found
        if m
    ]
    return ", ".join(words) or "none"


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows={"model": "models"},
        options={"models": Choice(_backbones.BACKBONES), "layers": 12},
        record="stacked_backbones/{backend}.json",
    ).main()
