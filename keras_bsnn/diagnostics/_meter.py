"""Measures what passes through the layers of a model, forwards and backwards."""

import collections
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _model
from keras_bsnn._types import Loss, Tensor
from keras_bsnn.diagnostics import _checks, _hints, _statistics
from keras_bsnn.diagnostics._report import ARRAYS, SignalReport
from keras_bsnn.diagnostics._sites import Observed, Site
from keras_bsnn.ops import isometry

FEW = 50  # layers that XLA compiles sooner than JAX runs them one by one


def signal_report(
    model: keras.Model,
    x: Tensor,
    y: Tensor,
    training: bool = True,
    jit_compile: bool | str = "auto",
    loss: Loss = None,
) -> SignalReport:
    """Measures how signals and gradients pass through each layer of a model.

    The model may be sequential, functional, nested or subclassed, and it does not
    change. A row of the report stands for a layer of `model.layers`, for a layer of a
    model among them, or for one of the layers of a `DepthStack`. The cost is that of a
    training step without compilation, and twice the memory of the outputs of all
    layers.

    Args:
        model: A built `keras.Model`.
        x: A batch of inputs, an array of shape `(batch, ...)`, or a structure of such.
        y: The targets of these inputs.
        training: Boolean, as in the call of a model. Defaults to `True`: batch
            normalization takes the statistics of the batch, as in a training step.
        jit_compile: Whether XLA compiles the measurement: `True`, which is worth it
            only for many measurements, `False`, or `"auto"`. The default, `"auto"`,
            compiles on JAX if there are at most 50 layers, a stack counting as one.
        loss: A `keras.losses.Loss`, its name, or a function of `y` and the output of
            the model, which then has one. Defaults to `None`: the loss that the model
            was compiled with.

    Returns:
        A `SignalReport`.

    Raises:
        ValueError: If an argument is not as described, if the model has no trainable
            weights or some that are not finite, or if `x` and `y` do not fit it.

    Source: this package.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=100, units=32, input_shape=(64,))
    >>> report = keras_bsnn.diagnostics.signal_report(
    ...     model, np.random.randn(16, 64), np.zeros((16, 10)), loss="mse")
    >>> report.verdict.startswith("The signal gets through")
    True
    """
    meter = SignalMeter(model, training, jit_compile, loss)
    _model.check_finite(model.trainable_variables)
    return meter(x, y)


class SignalMeter:
    """Measures a model as `signal_report` does, and compiles once for many batches.

    Call it with `x` and `y`, a batch of inputs and their targets: it returns a
    `SignalReport`.

    Args:
        model: A built `keras.Model`.
        training: Boolean, as in the call of a model. Defaults to `True`.
        jit_compile: `True`, `False` or `"auto"`, as in `signal_report`.
        loss: As in `signal_report`. Defaults to `None`, that of the model.

    Raises:
        ValueError: If an argument is not as `signal_report` takes it.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=9, units=32, input_shape=(64,))
    >>> model.compile(loss="mse")
    >>> meter = keras_bsnn.diagnostics.SignalMeter(model)
    >>> [round(meter(np.ones((8, 64)), np.full((8, 10), i)).loss) for i in (10, 20)]
    [100, 400]
    """

    def __init__(
        self,
        model: keras.Model,
        training: bool = True,
        jit_compile: bool | str = "auto",
        loss: Loss = None,
    ):
        _checks.check_model(model)
        self.loss = _checks.checked_loss(model, loss)
        if jit_compile not in (True, False, "auto"):
            raise ValueError(
                "`jit_compile` must be True, False or 'auto'. "
                f"Received: jit_compile={jit_compile!r}"
            )
        self.model, self.training, self.jit_compile = model, training, jit_compile
        self._observed = Observed(model)
        self._variables = list({id(v): v for v in model.variables}.values())
        self._functions: dict[Any, tuple[list[Site], list[list[int]], Callable]] = {}

    def __call__(self, x: Tensor, y: Tensor) -> SignalReport:
        _checks.check_batch(self.model, x, y)
        loss, sites, groups, measured = self._measured(x, y)
        for values in measured:
            values["isometry_gap"] = isometry.isometry_gap(values.pop("samples"))
        order = np.argsort(_rows(sites, groups))
        columns = {
            name: np.concatenate([np.asarray(v[name], "float64") for v in measured])
            for name in ARRAYS
        }
        columns = {name: column[order] for name, column in columns.items()}
        names = [name for site in sites for name in site.names()]
        kinds = [site.kind for site in sites for _ in site.names()]
        hints = [*_hints.hints(self.model, x)]
        return SignalReport(_numbered(names), kinds, loss=loss, hints=hints, **columns)

    def _measured(self, x, y):
        """Returns the loss, the `Site`s, their groups, a dict of arrays for each."""
        x, y = (keras.tree.map_structure(ops.convert_to_tensor, z) for z in (x, y))
        key = tuple((tuple(z.shape), str(z.dtype)) for z in keras.tree.flatten((x, y)))
        if key not in self._functions:
            sites = self._find_sites(x)
            groups = _groups(sites)
            self._functions[key] = sites, groups, self._compiled(x, y, sites, groups)
        sites, groups, function = self._functions[key]
        values = map(_backend.read, self._variables)
        loss, measured = function(*keras.tree.flatten((x, y)), *values)
        measured = keras.tree.map_structure(ops.convert_to_numpy, measured)
        return float(loss), sites, groups, measured

    def _find_sites(self, x):
        """Calls the model without probes."""
        found = []

        def function(*flat):
            with keras.StatelessScope():
                inputs = keras.tree.pack_sequence_as(x, flat)
                found.append(self._observed.sites(inputs, self.training))
            return flat[0]

        _backend.dry_run(function, *keras.tree.flatten(x))
        return found[-1]

    def _compiled(self, x, y, sites, groups):
        """Returns one forward and one backward pass, as a function of flat tensors."""
        count = len(keras.tree.flatten((x, y)))

        def function(*flat):
            inputs, targets = keras.tree.pack_sequence_as((x, y), flat[:count])
            return self._measure(inputs, targets, flat[count:], sites, groups)

        return _backend.compiled(function, self._uses_xla(sites))

    def _uses_xla(self, sites):
        if self.jit_compile != "auto":
            return self.jit_compile
        return keras.backend.backend() == "jax" and len(sites) <= FEW

    def _measure(self, x, y, values, sites, groups):
        trained = {id(v) for v in self.model.trainable_variables}
        pairs = list(zip(self._variables, values, strict=True))
        fixed = [(v, value) for v, value in pairs if id(v) not in trained]
        weights = [(v, value) for v, value in pairs if id(v) in trained]
        probes = [ops.zeros(site.shape, site.dtype) for site in sites]

        def loss(tensors):
            trainable = (variable for variable, _ in weights)
            moved = zip(trainable, tensors[len(probes) :], strict=True)
            return self._loss(x, y, tensors[: len(probes)], [*fixed, *moved])

        arguments = [*probes, *(value for _, value in weights)]
        value, outputs, gradients = _backend.value_and_gradients(loss, arguments)
        weight_gradients = {
            id(v): gradient
            for (v, _), gradient in zip(weights, gradients[len(probes) :], strict=True)
        }
        by_id = {id(v): value for v, value in pairs}
        return value, [
            _of_group(
                [sites[i] for i in members],
                [outputs[i] for i in members],
                [gradients[i] for i in members],
                (by_id, weight_gradients),
            )
            for members in groups
        ]

    def _loss(self, x, y, probes, values):
        """Returns the loss of the model, and what was observed at each site."""
        with keras.StatelessScope(values, collect_losses=True) as scope:
            y_pred, outputs = self._observed.outputs(x, self.training, probes)
        with keras.StatelessScope(values):
            value = self._compared(x, y, y_pred)
        # The model itself was not called, so it does not have these.
        for added in scope.losses:
            value = value + ops.cast(ops.sum(added), value.dtype)
        return value, outputs

    def _compared(self, x, y, y_pred):
        """Returns the loss of predictions, with that of the model's regularizers."""
        if self.loss is None:
            return self.model.compute_loss(
                x=x, y=y, y_pred=y_pred, training=self.training
            )
        return sum(self.model.losses, ops.mean(self.loss(y, y_pred)))


def _groups(sites):
    """Lists of the indices of sites that are measured together.

    Calls with outputs and weights of the same shapes are measured at once, as the
    layers of a stack are.
    """
    groups = collections.defaultdict(list)
    for i, site in enumerate(sites):
        weights = [(tuple(v.shape), v.dtype) for v in site.layer.trainable_variables]
        is_alone = site.shape[0] > 1
        groups[i if is_alone else (site.shape, site.dtype, *weights)].append(i)
    return list(groups.values())


def _rows(sites, groups):
    """Rows of the report that the layers of the groups have, in their order."""
    ends = np.cumsum([site.shape[0] for site in sites])
    rows = [
        np.arange(end - s.shape[0], end) for s, end in zip(sites, ends, strict=True)
    ]
    return np.concatenate([rows[i] for members in groups for i in members])


def _of_group(sites, outputs, gradients, weights):
    """Returns a dict of arrays, of the layers of sites that are measured together."""
    h, saturated = map(_statistics.joined, zip(*outputs, strict=True))
    return {
        **_statistics.of_outputs(h),
        "saturated": saturated,
        "gradient": _statistics.norm(_statistics.joined(gradients)),
        **_statistics.of_weights(sites, *weights),
    }


def _numbered(names):
    """Returns the names, of which those that recur, of shared layers, are numbered."""
    seen: collections.Counter[str] = collections.Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered
