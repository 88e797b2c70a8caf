"""Measures what passes through the layers of a model, forwards and backwards."""

import keras
from keras import ops

from keras_bsnn.diagnostics import _statistics
from keras_bsnn.diagnostics._sites import Observed
from keras_bsnn.ops import _backend

FEW = 50  # layers that XLA compiles sooner than JAX runs them one by one


class Meter:
    """Measures a model, and compiles once for many batches.

    Args:
        model: a built `keras.Model`, compiled with a loss.
        training: bool, as in the call of a model.
        jit_compile: whether XLA compiles the forward and the backward pass: `True`,
            `False`, or `"auto"`.
    """

    def __init__(self, model, training=True, jit_compile="auto"):
        self.model, self.training, self.jit_compile = model, training, jit_compile
        self.observed = Observed(model)
        self.variables = list({id(v): v for v in model.variables}.values())
        self.functions = {}

    def __call__(self, x, y):
        """Returns the loss, the `Site`s, and for each a dict of arrays by layer."""
        x, y = (keras.tree.map_structure(ops.convert_to_tensor, z) for z in (x, y))
        key = tuple((tuple(z.shape), str(z.dtype)) for z in keras.tree.flatten((x, y)))
        if key not in self.functions:
            sites = self._find_sites(x)
            self.functions[key] = sites, self._compiled(x, y, sites)
        sites, function = self.functions[key]
        values = map(_backend.read, self.variables)
        loss, measured = function(*keras.tree.flatten((x, y)), *values)
        measured = keras.tree.map_structure(ops.convert_to_numpy, measured)
        return float(loss), sites, measured

    def _find_sites(self, x):
        """Calls the model with tensors that have no values."""
        found = []

        def function(*flat):
            with keras.StatelessScope():
                inputs = keras.tree.pack_sequence_as(x, flat)
                found.append(self.observed(inputs, self.training)[1])
            return flat[0]

        _backend.abstract(function, *keras.tree.flatten(x))
        return found[-1]

    def _compiled(self, x, y, sites):
        """Returns one forward and one backward pass, as a function of flat tensors."""
        count = len(keras.tree.flatten((x, y)))

        def function(*flat):
            batch = keras.tree.pack_sequence_as((x, y), flat[:count])
            return self._measure(*batch, flat[count:], sites)

        return _backend.compiled(function, self._uses_xla(sites))

    def _uses_xla(self, sites):
        if self.jit_compile != "auto":
            return self.jit_compile
        return keras.backend.backend() == "jax" and len(sites) <= FEW

    def _measure(self, x, y, values, sites):
        trained = {id(v) for v in self.model.trainable_variables}
        pairs = list(zip(self.variables, values, strict=True))
        fixed = [(v, value) for v, value in pairs if id(v) not in trained]
        weights = [(v, value) for v, value in pairs if id(v) in trained]
        probes = [ops.zeros(site.shape, site.dtype) for site in sites]

        def loss(tensors):
            trainable = (variable for variable, _ in weights)
            moved = zip(trainable, tensors[len(probes) :], strict=True)
            return self._loss(x, y, tensors[: len(probes)], [*fixed, *moved])

        arguments = [*probes, *(value for _, value in weights)]
        value, outputs, gradients = _backend.gradients_and_more(loss, arguments)
        gradients = [*map(_backend.dense, gradients)]
        weight_gradients = {
            id(v): gradient
            for (v, _), gradient in zip(weights, gradients[len(probes) :], strict=True)
        }
        by_id = {id(v): value for v, value in pairs}
        return value, [
            {
                **_statistics.of_outputs(h),
                "saturated": shares,
                "gradient": _statistics.norm(gradient),
                **_statistics.of_weights(site, by_id, weight_gradients),
            }
            for site, (h, shares), gradient in zip(
                sites, outputs, gradients[: len(probes)], strict=True
            )
        ]

    def _loss(self, x, y, probes, values):
        """Returns the loss of the model, and what was observed at each site."""
        with keras.StatelessScope(values, collect_losses=True) as scope:
            y_pred, _, outputs = self.observed(x, self.training, probes)
        with keras.StatelessScope(values):
            value = self.model.compute_loss(
                x=x, y=y, y_pred=y_pred, training=self.training
            )
        # The model itself was not called, so that it does not know these.
        for added in scope.losses:
            value = value + ops.cast(ops.sum(added), value.dtype)
        return value, outputs
