"""Signals and gradients in 200 layers that are not trained, without and with GPN.

    python examples/reproduce/bsnn_synthetic.py

The synthetic experiment of Lu, Gould, Ajanthan, arXiv 2006.12169. With `x(1)` of
N(0, 1) and Haar orthogonal `W(l)`, a layer is `h(l) = W(l) x(l)`,
`x(l+1) = phi(h(l))`; backward, `y(l) = dE/dh(l)` starts as an independent N(0, 1) at
the last layer. Each activation is taken as it is ("plain"), and Gaussian-Poincaré
normalized (GPN) with the root of the authors and with the stable root. All have the
same weights, inputs and errors, and everything is in float64.

A gradient `dE/dW(l)` is the mean over the samples, as of a loss that is a mean.
"""

import argparse
import io
import json
import time
from pathlib import Path

import keras
import numpy as np
from _bsnn import FUNCTIONS, PAPERS_ROOT
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from keras_bsnn import _backend, plots
from keras_bsnn._record import environment
from keras_bsnn.activations import GaussianPoincare, get
from keras_bsnn.initializers import HaarOrthogonal

START = time.perf_counter()
OUT = Path("examples/results/bsnn_synthetic.json")
FIGURE = Path("docs/bsnn_synthetic.png")

LINES = {"plain": ":", "paper's root": "--", "stable root": "-"}

# In the order of the panels of the figure: those of the first row have log axes.
CURVES = {
    "second_moment_x": "mean of x²",
    "second_moment_h": "mean of h²",
    "norm_dW": "‖dE/dW‖",
    "second_moment_y": "mean of y²",
    "mean_x": "mean of x",
    "mean_h": "mean of h",
    "mean_slope": "mean of φ'(h)",
    "second_moment_slope": "mean of φ'(h)²",
}
LOGARITHMIC = list(CURVES)[:4]
FLOOR = 1e-3  # of the log axes

COLUMNS = {
    "h2_first": "h², first",
    "h2_last": "h², last",
    "dW_first": "‖dW‖, first",
    "dW_last": "‖dW‖, last",
    "dW_ratio": "max/min",
    "y2_first": "y², first",
}
# An earlier, separate computation of this project, with other random numbers.
REFERENCE = {
    ("tanh", "plain"): (1.0, 2.5e-3, 1.33, 1.12, 1.19, 3.6e-3),
    ("tanh", "paper's root"): (1.0, 1.02, 19.5, 23.2, 1.59, 0.74),
    ("relu", "paper's root"): (1.0, 0.38, 18.2, 13.7, 2.3, 0.67),
    ("elu", "paper's root"): (1.0, 1.04, 23.4, 23.4, 1.51, 1.14),
    ("selu", "plain"): (1.0, 1.0, 2.28e4, 23.2, 984, 9.7e5),
    ("selu", "paper's root"): (1.0, 0.97, 22.8, 22.2, 1.42, 1.10),
    ("gelu", "paper's root"): (1.0, 1.02, 25.8, 23.8, 1.88, 1.28),
}
FULL_SIZE = {"depth": 200, "units": 500, "samples": 500}


def main():
    args = parse_arguments()
    weights, x, error = draw(args)
    layers = thinned(args.depth)
    result = {
        name: {
            form: entry(phi, measure(phi, weights, x, error), layers)
            for form, phi in forms(name).items()
        }
        for name in FUNCTIONS
    }
    settings = {**vars(args), "dtype": "float64", "dW": "mean over the samples"}
    record = {
        **environment(),
        "settings": settings,
        "seconds": round(time.perf_counter() - START),
        "layers": layers,
        "result": result,
    }
    text = json.dumps(record, indent=1, default=str, allow_nan=False)
    args.out.write_text(text + "\n")
    plot(layers, result, args.figure)
    show(result, args)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--depth", type=int, default=FULL_SIZE["depth"], help="number of layers")
    add("--units", type=int, default=FULL_SIZE["units"], help="width of each layer")
    add("--samples", type=int, default=FULL_SIZE["samples"])
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=OUT, help="the record, as JSON")
    add("--figure", type=Path, default=FIGURE)
    args = parser.parse_args()
    for name in FULL_SIZE:
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(args, name)}")
    return args


def draw(args):
    """The weights `(depth, units, units)`, the inputs, the errors at the last layer."""
    with _backend.float64():
        haar = HaarOrthogonal(seed=args.seed)
        weights = haar((args.depth, args.units, args.units), dtype="float64")
        weights = keras.ops.convert_to_numpy(weights)
    normal = np.random.default_rng(args.seed).standard_normal
    return weights, *(normal((args.samples, args.units)) for _ in range(2))


def forms(name):
    """The activation by form; no stable root where that is the authors'."""
    function = FUNCTIONS[name]
    paper = GaussianPoincare(function, PAPERS_ROOT[name])
    stable = GaussianPoincare(function)
    found = {"plain": get(function), "paper's root": paper}
    return found if stable.shift == paper.shift else {**found, "stable root": stable}


def measure(phi, weights, x, error):
    """The curves: dict of arrays, a number for each layer."""
    with np.errstate(over="ignore", invalid="ignore"):
        forward, inputs, slopes = forward_pass(phi, weights, x)
        backward = backward_pass(weights, inputs, slopes, error)
    return {**forward, **backward}


def forward_pass(phi, weights, x):
    """The curves of the signal; each layer's input `x` and slope `phi'(h)`."""
    means, inputs, slopes = [], [], []
    for w in weights:
        h = x @ w
        output, slope = value_and_slope(phi, h)
        means.append([(np.mean(s), np.mean(s**2)) for s in (x, h, slope)])
        inputs.append(x)
        slopes.append(slope)
        x = output
    curves = np.moveaxis(means, 0, -1)
    names = ("x", "h", "slope")
    first = {f"mean_{n}": c[0] for n, c in zip(names, curves, strict=True)}
    second = {f"second_moment_{n}": c[1] for n, c in zip(names, curves, strict=True)}
    return {**first, **second}, inputs, slopes


def value_and_slope(phi, h):
    """`phi(h)` and `phi'(h)`."""
    with _backend.float64():
        h = keras.ops.convert_to_tensor(h)
        (value,), pull_back = _backend.vjp(lambda h: (phi(h),), h)
        (slope,) = pull_back((keras.ops.ones_like(value),))
        return keras.ops.convert_to_numpy(value), keras.ops.convert_to_numpy(slope)


def backward_pass(weights, inputs, slopes, y):
    """The curves of the gradients; `y` is that at the last `h`."""
    norms, squares = np.empty((2, len(weights)))
    for layer in reversed(range(len(weights))):
        norms[layer] = np.linalg.norm(inputs[layer].T @ y) / len(y)
        squares[layer] = np.mean(y**2)
        if layer > 0:
            y = slopes[layer - 1] * (y @ weights[layer].T)
    return {"norm_dW": norms, "second_moment_y": squares}


def thinned(depth, count=20):
    """About `count` layers, counted from 1, the first and the last among them."""
    return np.unique(np.linspace(1, depth, count).round().astype(int)).tolist()


def entry(phi, curves, layers):
    """What the record says of one network."""
    constants = ("scale", "shift", "length_slope")
    not_finite = sum(int(np.sum(~np.isfinite(c))) for c in curves.values())
    return {
        **{c: number(getattr(phi, c)) for c in constants if hasattr(phi, c)},
        "summary": {name: number(value) for name, value in summary(curves).items()},
        "not_finite": not_finite,
        "curves": {
            name: [number(curve[layer - 1]) for layer in layers]
            for name, curve in curves.items()
        },
    }


def summary(curves):
    h2, norms = curves["second_moment_h"], curves["norm_dW"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.max(norms) / np.min(norms)
    y2 = curves["second_moment_y"][0]
    values = (h2[0], h2[-1], norms[0], norms[-1], ratio, y2)
    return dict(zip(COLUMNS, values, strict=True))


def number(value, digits=4):
    """Rounded; `None`, which JSON can hold, where it is not finite."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def show(result, args):
    """A table, with the reference below our numbers where the size is the full one."""
    comparable = all(getattr(args, k) == size for k, size in FULL_SIZE.items())
    title = f"{args.depth} layers of {args.units} units, {args.samples} samples"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for column in COLUMNS.values():
        table.add_column(column.replace(" ", "\n"), justify="right")
    for name, entries in result.items():
        table.add_row(name, style="bold")
        for form, found in entries.items():
            table.add_row(f" {form}", *map(cell, found["summary"].values()))
            if comparable and (name, form) in REFERENCE:
                cells = map(cell, REFERENCE[name, form])
                table.add_row("  reference", *cells, style="dim")
    Console().print(table)


def cell(value):
    return "not finite" if value is None else f"{value:.3g}"


def plot(layers, result, path):
    """Draws the curves: a panel for each, color by activation, line by form."""
    drawing = io.BytesIO()
    with plots.figure(drawing, 2, 4, size=(10, 8), sharex=True) as panels:
        for panel, (key, title) in zip(panels.flat, CURVES.items(), strict=True):
            for values, style in drawn(result, key):
                panel.plot(layers, values, **style)
            panel.set_title(title, fontsize=17)
            panel.tick_params(labelsize=14)
            if key in LOGARITHMIC:
                largest = max(np.nanmax(values) for values, _ in drawn(result, key))
                panel.set(yscale="log", ylim=(FLOOR, 5 * largest))
            else:
                panel.set_xlabel("layer", fontsize=15)
        add_legend(panels[0, 0].figure, result)
    # In 128 colors, for a small file.
    Image.open(drawing).convert("RGB").quantize(128).save(path, "PNG", optimize=True)


def drawn(result, key):
    """Each network's curve, with gaps where it is not finite, and its style."""
    for color, entries in zip(plots.COLORS, result.values(), strict=False):
        for form, found in entries.items():
            values = np.array(found["curves"][key], dtype=float)
            yield values, {"color": color, "linestyle": LINES[form]}


def add_legend(figure, result):
    from matplotlib.lines import Line2D

    style = {"fontsize": 16, "columnspacing": 1, "handlelength": 1.8}
    colors = [
        Line2D([], [], color=color, linewidth=5, label=name)
        for color, name in zip(plots.COLORS, result, strict=False)
    ]
    lines = [
        Line2D([], [], color="black", linestyle=line, label=form)
        for form, line in LINES.items()
    ]
    figure.legend(handles=colors, loc="outside upper left", ncols=3, **style)
    figure.legend(handles=lines, loc="outside upper right", **style)
    figure.supxlabel("\n".join(notes(result)), fontsize=15)


def notes(result):
    """What the figure does not show, in words."""
    below, not_finite = [], []
    for name, entries in result.items():
        for form, found in entries.items():
            smallest = min(lowest(found["curves"][key]) for key in LOGARITHMIC)
            below += [f"{form} {name}"] * (smallest < FLOOR)
            not_finite += [f"{form} {name}"] * (found["not_finite"] > 0)
    same = [name for name, entries in result.items() if "stable root" not in entries]
    said = {
        "The paper's root is the stable one": same,
        "Go on below the log axes": below,
        "Not finite somewhere": not_finite,
    }
    return [f"{what}: {', '.join(names)}." for what, names in said.items() if names]


def lowest(values):
    return min((v for v in values if v is not None), default=np.inf)


if __name__ == "__main__":
    main()
