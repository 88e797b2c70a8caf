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

import functools

import keras
import numpy as np
from _bsnn import FUNCTIONS, PAPERS_ROOT
from _runner import Experiment, markdown

from keras_bsnn import _backend, plots
from keras_bsnn.activations import GaussianPoincare, get
from keras_bsnn.initializers import HaarOrthogonal

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


def rows(args):
    size = {name: getattr(args, name) for name in (*FULL_SIZE, "seed")}
    for name in FULL_SIZE:
        if size[name] < 1:
            raise SystemExit(f"--{name} must be at least 1, not {size[name]}")
    return [{"row": n, "form": form, **size} for n in FUNCTIONS for form in forms(n)]


def run(args, row, form, **size):
    phi = forms(row)[form]
    return entry(phi, measure(phi, *draw(**size)), thinned(size["depth"]))


@functools.lru_cache(1)
def draw(depth, units, samples, seed):
    """The weights `(depth, units, units)`, the inputs, the errors at the last layer."""
    with _backend.float64():
        weights = HaarOrthogonal(seed=seed)((depth, units, units), dtype="float64")
        weights = keras.ops.convert_to_numpy(weights)
    normal = np.random.default_rng(seed).standard_normal
    return weights, *(normal((samples, units)) for _ in range(2))


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
        return {**forward, **backward_pass(weights, inputs, slopes, error)}


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
    found = {}
    for name, (first, second) in zip(("x", "h", "slope"), curves, strict=True):
        found |= {f"mean_{name}": first, f"second_moment_{name}": second}
    return found, inputs, slopes


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
    h2, norms = curves["second_moment_h"], curves["norm_dW"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.max(norms) / np.min(norms)
    y2 = curves["second_moment_y"][0]
    values = map(number, (h2[0], h2[-1], norms[0], norms[-1], ratio, y2))
    return {
        **{c: number(getattr(phi, c)) for c in constants if hasattr(phi, c)},
        "summary": dict(zip(COLUMNS, values, strict=True)),
        "not_finite": sum(int(np.sum(~np.isfinite(c))) for c in curves.values()),
        "curves": {
            name: [number(curve[layer - 1]) for layer in layers]
            for name, curve in curves.items()
        },
    }


def number(value):
    """Four digits; `None`, which JSON can hold, where it is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def table(records):
    """With the reference below our numbers where the size is the full one."""
    lines = []
    for row in records:
        key = (row["row"], row["form"])
        lines.append([", ".join(key), *map(cell, row["summary"].values())])
        if FULL_SIZE.items() <= row.items() and key in REFERENCE:
            lines.append(["reference", *map(cell, REFERENCE[key])])
    return markdown(["", *COLUMNS.values()], lines)


def cell(value):
    return "not finite" if value is None else f"{value:.3g}"


def plot(records, path):
    """Draws the curves: a panel for each, color by activation, line by form."""
    settings = {"saving": {"dpi": 120}, "sharex": True}
    with plots.figure(path, 2, 4, size=(10, 8), **settings) as panels:
        for panel, (key, title) in zip(panels.flat, CURVES.items(), strict=True):
            # With gaps where they are not finite.
            curves = [np.array(row["curves"][key], dtype=float) for row in records]
            for row, values in zip(records, curves, strict=True):
                style = {"color": color(row["row"]), "linestyle": LINES[row["form"]]}
                panel.plot(thinned(row["depth"]), values, **style)
            panel.set_title(title, fontsize=17)
            panel.tick_params(labelsize=14)
            if key in LOGARITHMIC:
                panel.set(yscale="log", ylim=(FLOOR, 5 * np.nanmax(curves)))
            else:
                panel.set_xlabel("layer", fontsize=15)
        add_legend(panels[0, 0].figure, records)


def color(name):
    return plots.COLORS[[*FUNCTIONS].index(name)]


def add_legend(figure, records):
    from matplotlib.lines import Line2D

    style = {"fontsize": 16, "columnspacing": 1, "handlelength": 1.8}
    colors = [Line2D([], [], color=color(n), linewidth=5, label=n) for n in FUNCTIONS]
    lines = [
        Line2D([], [], color="black", linestyle=line, label=form)
        for form, line in LINES.items()
    ]
    figure.legend(handles=colors, loc="outside upper left", ncols=3, **style)
    figure.legend(handles=lines, loc="outside upper right", **style)
    figure.supxlabel("\n".join(notes(records)), fontsize=15)


def notes(records):
    """What the figure does not show, in words."""
    below, not_finite = [], []
    for row in records:
        curves = [v for key in LOGARITHMIC for v in row["curves"][key] if v is not None]
        name = f"{row['form']} {row['row']}"
        below += [name] * (min(curves, default=np.inf) < FLOOR)
        not_finite += [name] * (row["not_finite"] > 0)
    same = [name for name in FUNCTIONS if "stable root" not in forms(name)]
    said = {
        "The paper's root is the stable one": same,
        "Go on below the log axes": below,
        "Not finite somewhere": not_finite,
    }
    return [f"{what}: {', '.join(names)}." for what, names in said.items() if names]


EXPERIMENT = Experiment(
    __file__, run, table, rows, plot, options={**FULL_SIZE, "seed": 0}
)

if __name__ == "__main__":
    EXPERIMENT.main()
