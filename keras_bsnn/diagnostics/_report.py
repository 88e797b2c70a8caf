"""A table of what passes through a model, layer by layer."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from keras_bsnn import plots
from keras_bsnn.diagnostics import _page, _text, _verdict


@dataclasses.dataclass(frozen=True, repr=False)
class SignalReport:
    """What `signal_report` measures: a row for each layer, from input to output.

    `print(report)` shows the verdict and a table of the worst layers.

    Attributes:
        layers: list of the names of the layers; each layer in a `DepthStack` has its
            own.
        kinds: list of the names of their classes.
        parameters: numbers of trainable weights.
        mean: means of the entries of the outputs.
        root_mean_square: root mean squares of these entries; their squares are the
            second moments.
        cosine_similarity: mean cosine similarities of the outputs of two samples, over
            all pairs: 1 if samples can no longer be told apart.
        gradient: norms of the gradient of the loss with respect to the output.
        weight_gradient: norms of the gradient with respect to the weights.
        isometry_gap: `ops.isometry.isometry_gap` of the outputs of up to 32 samples,
            and of at most half as many as there are features.
        orthogonality_error: `ops.orthogonal.orthogonality_error` of the kernel: the
            largest one of the kernels that are constrained to be orthogonal, or else
            that of the first weight that is a matrix.
        saturated: shares of the activations whose slope is below 0.01.
        loss: float, the loss of the batch.
        hints: list of sentences on what else to change in the inputs or in how the
            model is compiled; the verdict ends with them.

    All but `layers`, `kinds`, `loss` and `hints` are arrays of shape `(layers,)` and
    dtype float64, NaN where a layer has no such value.

    Example:

    >>> import keras_bsnn, numpy as np
    >>> model = keras_bsnn.models.bsnn_mlp(20, 16, input_shape=(4,))
    >>> model.compile(loss="mse")
    >>> report = keras_bsnn.diagnostics.signal_report(
    ...     model, np.random.randn(8, 4), np.zeros((8, 10)))
    >>> str(report).startswith(report.verdict)
    True
    >>> report.gradient.shape
    (26,)
    """

    layers: list[str]
    kinds: list[str]
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
    hints: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.verdict}\n\n{_text.worst_layers(self)}"

    def __repr__(self) -> str:
        words = "gets through" if self.gets_through else "does not get through"
        return f"<SignalReport: the signal {words} {len(self.layers)} layers>"

    @property
    def second_moment(self) -> np.ndarray:
        """Second moments of the entries of the outputs, of shape `(layers,)`."""
        return np.square(self.root_mean_square)

    @property
    def is_finite(self) -> bool:
        """Whether all outputs and gradients are finite."""
        norms = np.stack([self.root_mean_square, self.gradient])
        return bool(np.isfinite(norms).all())

    @property
    def gets_through(self) -> bool:
        """Whether the verdict finds that nothing vanishes, explodes or collapses."""
        return not _verdict.faults(self)

    @property
    def verdict(self) -> str:
        """Whether the signal gets through, in words, and what to try if not."""
        return " ".join([*_verdict.sentences(self), *self.hints])

    def trained(self) -> "SignalReport":
        """Returns the report on the layers that have trainable weights."""
        rows = np.flatnonzero(self.parameters)
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in ARRAYS}
        for name in NAMES:
            columns[name] = [getattr(self, name)[i] for i in rows]
        return dataclasses.replace(self, **columns)

    def to_dict(self) -> dict[str, list]:
        """Returns a dict from the name of each column to the list of its values."""
        names = {name: list(getattr(self, name)) for name in NAMES}
        return {**names, **{name: getattr(self, name).tolist() for name in COLUMNS}}

    def to_csv(self, path: str | Path) -> None:
        """Writes the names of the columns, and then a line for each layer.

        Args:
            path: Path of the file to write.
        """
        table = self.to_dict()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))

    def plot(self, path: str | Path) -> None:
        """Draws signals and gradients against depth, as `plots.signals` does.

        Args:
            path: Path of the image file to write.
        """
        plots.signals({"": self}, path)

    def to_html(
        self,
        path: str | Path,
        title: str = "Signal report",
        facts: dict[str, str] | None = None,
    ) -> None:
        """Writes a page with the verdict, the figure and the table, in one file.

        The page loads nothing from elsewhere. Its table shows all layers, or 300 of
        them if there are more.

        Args:
            path: Path of the file to write.
            title: String, the title of the page. Defaults to "Signal report".
            facts: Dict from a label to a text on the measurement. Defaults to `None`.

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
        page = _page.render(self, title, facts or {})
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)


NAMES = ("layers", "kinds")
ARRAYS = (
    *("parameters", "mean", "root_mean_square", "cosine_similarity"),
    *("gradient", "weight_gradient", "isometry_gap"),
    *("orthogonality_error", "saturated"),
)
COLUMNS = ("second_moment", *ARRAYS)
