"""A table of what passes through a model, layer by layer."""

import collections
import csv
import dataclasses

import keras
import numpy as np

from keras_bsnn import _model, plots
from keras_bsnn._public import public
from keras_bsnn.diagnostics import _page, _verdict
from keras_bsnn.diagnostics._meter import Meter
from keras_bsnn.diagnostics._sites import is_stack
from keras_bsnn.ops import isometry


@dataclasses.dataclass(frozen=True)
class SignalReport:
    """What `signal_report` found: a row for each layer, from the input to the output.

    Attributes:
        layers: names of the layers; those in a `DepthStack` each have their own.
        kinds: names of their classes.
        parameters: number of weights that are trained.
        mean: of the entries of the output.
        root_mean_square: of these entries; its square is the second moment.
        cosine_similarity: of the outputs of two samples, the mean over all pairs: 1 if
            samples can no longer be told apart.
        gradient: norm of the gradient of the loss with respect to the output.
        weight_gradient: norm of the gradient with respect to the weights.
        isometry_gap: of the outputs of up to 32 samples, or half as many as features,
            `ops.isometry.isometry_gap`.
        orthogonality_error: of the kernel, `ops.orthogonal.orthogonality_error`.
        saturated: share of the activations that have a slope below 0.01.
        loss: of the batch, a number.

    All but the names and the loss are arrays of shape `(layers,)` in float64, NaN where
    a layer has no such thing.
    """

    layers: list
    kinds: list
    parameters: np.ndarray
    mean: np.ndarray
    root_mean_square: np.ndarray
    cosine_similarity: np.ndarray
    gradient: np.ndarray
    weight_gradient: np.ndarray
    isometry_gap: np.ndarray
    orthogonality_error: np.ndarray
    saturated: np.ndarray
    loss: float

    @property
    def second_moment(self):
        """Of the entries of the output of each layer."""
        return np.square(self.root_mean_square)

    @property
    def is_finite(self):
        """Whether all outputs and gradients are."""
        norms = np.stack([self.root_mean_square, self.gradient])
        return bool(np.isfinite(norms).all())

    @property
    def gets_through(self):
        """Whether the signal does, at both ends and without harm in between."""
        return not _verdict.faults(self)

    @property
    def verdict(self):
        """Whether the signal gets through, in words, and what to try if not."""
        return " ".join(_verdict.of(self))

    def trained(self):
        """The same, of the layers that have weights to train."""
        rows = np.flatnonzero(self.parameters)
        names = {name: [getattr(self, name)[i] for i in rows] for name in NAMES}
        columns = {name: getattr(self, name)[rows] for name in ARRAYS}
        return SignalReport(**names, **columns, loss=self.loss)

    def to_dict(self):
        """A dict of lists, one for each column."""
        names = {name: list(getattr(self, name)) for name in NAMES}
        return {**names, **{name: getattr(self, name).tolist() for name in COLUMNS}}

    def to_csv(self, path):
        """Writes a line for each layer, under the names of the columns."""
        table = self.to_dict()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))

    def plot(self, path):
        """Draws what `plots.signals` does, of this report."""
        plots.signals({"": self}, path)

    def to_html(self, path, title="Signal report", facts=None):
        """Writes a page: the verdict, the figure and the table, in one file.

        It loads nothing from elsewhere. The table has all layers of up to 300.

        Args:
            path: of the file to write.
            title: of the page.
            facts: dict from a label to a text, to be told of what was measured.

        Example:

        >>> import keras_bsnn, numpy as np, pathlib, tempfile
        >>> model = keras_bsnn.models.bsnn_mlp(20, 16, input_shape=(4,))
        >>> model.compile(loss="mse")
        >>> report = keras_bsnn.diagnostics.signal_report(
        ...     model, np.random.randn(8, 4), np.zeros((8, 10)))
        >>> path = pathlib.Path(tempfile.mkdtemp(), "report.html")
        >>> report.to_html(path, title="My network", facts={"Data": "noise"})
        >>> "<title>My network</title>" in path.read_text(encoding="utf-8")
        True
        """
        page = _page.of(self, title, facts or {})
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)


NAMES = ("layers", "kinds")
ARRAYS = (
    *("parameters", "mean", "root_mean_square", "cosine_similarity"),
    *("gradient", "weight_gradient", "isometry_gap"),
    *("orthogonality_error", "saturated"),
)
COLUMNS = ("second_moment", *ARRAYS)


@public
def signal_report(model, x, y, training=True, jit_compile="auto"):
    """Measures how signals and gradients pass through each layer of a model.

    Args:
        model: a built `keras.Model`, compiled with a loss: Sequential, functional,
            nested or subclassed. Its layers are those that `model.layers` tells, and
            those of models among them.
        x: a batch of inputs, `(batch, ...)`, or a structure of such.
        y: their targets.
        training: as of the call of a model: by default as in a training step, with the
            statistics of the batch where it is normalized. The model does not change.
        jit_compile: whether XLA compiles it: `True`, worth it only for what is measured
            very often; `False`; or `"auto"`, which is so on JAX where the layers are at
            most 50, a `DepthStack` counted as one.

    Returns:
        A `SignalReport`. The cost is that of a training step without compilation, and
        twice the memory of the outputs of all layers.

    Raises:
        ValueError: `model` or `jit_compile` is not as above, the model has no weights
            to train or some that are not finite, or `x` and `y` do not fit it.

    Source: this package.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=100, units=32, input_shape=(64,))
    >>> model.compile(loss="mse")
    >>> report = keras_bsnn.diagnostics.signal_report(
    ...     model, np.random.randn(16, 64).astype("float32"), np.zeros((16, 10)))
    >>> report.verdict.startswith("The signal gets through")
    True
    """
    meter = SignalMeter(model, training, jit_compile)
    _model.check_finite(model.trainable_variables)
    return meter(x, y)


@public
class SignalMeter:
    """`signal_report`, for many batches: what it compiles is kept.

    Args:
        model, training, jit_compile: as there.

    Call arguments: `x` and `y`, as there. Returns a `SignalReport`.

    Raises:
        ValueError: as there.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=9, units=32, input_shape=(64,))
    >>> model.compile(loss="mse")
    >>> meter = keras_bsnn.diagnostics.SignalMeter(model)
    >>> [round(meter(np.ones((8, 64)), np.full((8, 10), i)).loss) for i in (10, 20)]
    [100, 400]
    """

    def __init__(self, model, training=True, jit_compile="auto"):
        _check(model)
        if jit_compile not in (True, False, "auto"):
            raise ValueError(
                "`jit_compile` must be True, False or 'auto'. "
                f"Received: jit_compile={jit_compile!r}"
            )
        self.meter = Meter(model, training, jit_compile)

    def __call__(self, x, y):
        _check_batch(self.meter.model, x, y)
        loss, sites, found = self.meter(x, y)
        names = [name for site in sites for name in _names(site)]
        kinds = [_kind(site.layer) for site in sites for _ in _names(site)]
        for values in found:
            values["isometry_gap"] = isometry.isometry_gap(values.pop("samples"))
        columns = {
            name: np.concatenate([np.asarray(v[name], "float64") for v in found])
            for name in ARRAYS
        }
        return SignalReport(_numbered(names), kinds, loss=loss, **columns)


def _names(site):
    name = site.layer.name
    if is_stack(site.layer):
        return [f"{name}/{i}" for i in range(site.layer.depth)]
    return [name]


def _kind(layer):
    return type(layer.block if is_stack(layer) else layer).__name__


def _numbered(names):
    """With a number behind what is there again: a layer that is called twice."""
    seen = collections.Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _check(model):
    if not isinstance(model, keras.Model) or not model.built or not model.compiled:
        raise ValueError(
            "`model` must be a built keras.Model, compiled with a loss. "
            f"Received: {model!r}"
        )
    if not model.trainable_variables:
        raise ValueError(
            f"`model` must have weights to train: {model.name!r} has none."
        )


def _check_batch(model, x, y):
    sizes = {len(z) for z in keras.tree.flatten((x, y))}
    if len(sizes) != 1:
        raise ValueError(
            f"`x` and `y` must have as many samples. Received: {sorted(sizes)}"
        )
    _check_inputs(model, x)


def _check_inputs(model, x):
    """Where the model tells what it takes."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return
    expected = [tuple(z.shape[1:]) for z in inputs]
    found = [tuple(np.shape(z)[1:]) for z in keras.tree.flatten(x)]
    fits = len(expected) == len(found) and all(
        len(a) == len(b) and all(n in (None, m) for n, m in zip(a, b, strict=True))
        for a, b in zip(expected, found, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`x` must fit the inputs of the model, of shapes {expected} for a sample. "
            f"Received: {found}"
        )
