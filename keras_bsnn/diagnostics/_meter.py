"""Reads what passes through the layers of a model, forwards and backwards."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _calls, _model
from keras_bsnn.layers import DepthStack, _saturation
from keras_bsnn.ops import orthogonal

FEW = 50  # layers that XLA compiles sooner than JAX runs them one by one
SAMPLES = 32  # whose isometry gap is taken, at most


class Site(NamedTuple):
    """A call of a layer whose output is measured.

    Attributes:
        layer: the layer.
        shape, dtype: of what it gives: `(layers, batch, ...)`, where only a
            `DepthStack` has more than one layer.
    """

    layer: keras.layers.Layer
    shape: tuple
    dtype: str


class Meter:
    """Measures a model, and compiles once for many batches.

    Args:
        model: a built `keras.Model`, compiled with a loss.
        training: as of the call of a model.
        jit_compile: whether XLA compiles the forward and the backward pass: `True`,
            `False`, or `"auto"`.
    """

    def __init__(self, model, training=True, jit_compile="auto"):
        self.model, self.training, self.jit_compile = model, training, jit_compile
        self.variables = _distinct(model.variables)
        self.layers = _distinct(_model.leaves(model))
        self.functions = {}

    def __call__(self, x, y):
        """The `Site`s, and for each a dict of arrays with a value for each layer."""
        x, y = (keras.tree.map_structure(ops.convert_to_tensor, z) for z in (x, y))
        key = tuple((tuple(z.shape), str(z.dtype)) for z in keras.tree.flatten((x, y)))
        if key not in self.functions:
            sites = self._find_sites(x)
            self.functions[key] = sites, self._compiled(x, y, sites)
        sites, function = self.functions[key]
        values = map(_backend.read, self.variables)
        loss, found = function(*keras.tree.flatten((x, y)), *values)
        found = keras.tree.map_structure(ops.convert_to_numpy, found)
        return float(loss), sites, found

    def _find_sites(self, x):
        """By a call of the model with tensors that have no values."""
        sites = []

        def finder(layer, call):
            def finding(*args, **kwargs):
                y = call(*args, **kwargs)
                if _is_measurable(y):
                    sites.append(Site(layer, _shape(layer, y), y.dtype))
                return y

            return finding

        def function(*flat):
            # Again from the start, in case that it is traced more than once.
            sites.clear()
            with keras.StatelessScope(), _calls.replaced(self.layers, finder):
                self.model(keras.tree.pack_sequence_as(x, flat), training=self.training)
            return flat[0]

        _backend.output_specs(function, *keras.tree.flatten(x))
        return sites

    def _compiled(self, x, y, sites):
        """One forward and one backward pass, as a function of flat tensors."""
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
            with keras.StatelessScope([*fixed, *moved]):
                return self._loss(x, y, tensors[: len(probes)])

        arguments = [*probes, *(value for _, value in weights)]
        value, outputs, gradients = _backend.value_and_gradients(loss, arguments)
        of_weights = {
            id(v): gradient
            for (v, _), gradient in zip(weights, gradients[len(probes) :], strict=True)
        }
        read = {id(v): value for v, value in pairs}
        return value, [
            {
                **_of_outputs(h),
                "parameters": ops.full((site.shape[0],), _parameters(site)),
                "saturated": ops.reshape(share, (-1,)),
                "gradient": _norm(gradient),
                "weight_gradient": _weight_norm(site, of_weights),
                "orthogonality_error": _orthogonality_error(site, read),
            }
            for site, (h, share), gradient in zip(
                sites, outputs, gradients[: len(probes)], strict=True
            )
        ]

    def _loss(self, x, y, probes):
        outputs, probes = [], iter(probes)

        def prober(layer, call):
            def probed(*args, **kwargs):
                if isinstance(layer, DepthStack):
                    found = _through_stack(layer, next(probes), *args, **kwargs)
                else:
                    found = _saturation.observed_call(layer, call, *args, **kwargs)
                    if not _is_measurable(found[0]):
                        return found[0]
                    h, share = found
                    found = (h + next(probes)[0])[None], share
                outputs.append(found)
                return _returned(layer, found[0])

            return probed

        with _calls.replaced(self.layers, prober):
            y_pred = self.model(x, training=self.training)
            value = self.model.compute_loss(
                x=x, y=y, y_pred=y_pred, training=self.training
            )
        return value, outputs


def _through_stack(stack, probes, inputs, training=None, mask=None):
    return stack.every_output(inputs, probes, training, mask)


def _returned(layer, outputs):
    """What the layer returns, from what all of its layers give."""
    if getattr(layer, "return_sequence", False) and isinstance(layer, DepthStack):
        return ops.moveaxis(outputs, 0, 1)
    return outputs[-1]


def _shape(layer, y):
    if not isinstance(layer, DepthStack):
        return (1, *y.shape)
    if layer.return_sequence:
        return (layer.depth, y.shape[0], *y.shape[2:])
    return (layer.depth, *y.shape)


def _distinct(items):
    return list({id(item): item for item in items}.values())


def _is_measurable(y):
    """Whether it is one tensor of floating point, with samples."""
    return (
        ops.is_tensor(y)
        and len(y.shape) > 1
        and keras.backend.is_float_dtype(keras.backend.standardize_dtype(y.dtype))
    )


def _of_outputs(h):
    """Statistics of outputs, of shape `(layers, batch, ...)`."""
    h = ops.cast(ops.reshape(h, (*h.shape[:2], -1)), "float32")
    return {
        "mean": ops.mean(h, axis=(1, 2)),
        "root_mean_square": _norm(h) / np.sqrt(h.shape[1] * h.shape[2]),
        "cosine_similarity": _cosine_similarity(h),
        "samples": h[:, : _isometry_samples(h.shape[-1])],
    }


def _isometry_samples(features):
    """How many: a random matrix is nearly singular now and then if it is square."""
    return SAMPLES if features <= SAMPLES // 2 else min(SAMPLES, features // 2)


def _cosine_similarity(h):
    """The mean over pairs of samples that are not zero; NaN if there is no pair."""
    lengths = _norm(h, keep=2)
    is_zero = lengths == 0
    directions = h / ops.where(is_zero, 1.0, lengths)[..., None]
    count = ops.sum(ops.cast(lengths > 0, "float32"), axis=1)
    total = ops.sum(ops.square(ops.sum(directions, axis=1)), axis=-1)
    pairs = count * (count - 1)
    is_known = (pairs > 0) & ops.all(ops.isfinite(lengths), axis=1)
    return ops.where(is_known, (total - count) / ops.maximum(pairs, 1.0), float("nan"))


def _norm(x, keep=1):
    """Over all but the first axes, without underflow or overflow on the way."""
    x = ops.cast(ops.reshape(x, (*x.shape[:keep], -1)), "float32")
    largest = ops.max(ops.abs(x), axis=-1)
    scale = ops.where(largest > 0, largest, 1.0)
    return scale * ops.sqrt(ops.sum(ops.square(x / scale[..., None]), axis=-1))


def _by_layer(site, tensor):
    return tensor if isinstance(site.layer, DepthStack) else tensor[None]


def _parameters(site):
    """Of each layer."""
    return (
        sum(np.prod(v.shape) for v in site.layer.trainable_variables) // site.shape[0]
    )


def _weight_norm(site, gradients):
    """Of all weights of each layer; NaN if it has none that is trained."""
    found = [
        _norm(_by_layer(site, gradients[id(v)]))
        for v in site.layer.trainable_variables
        if id(v) in gradients
    ]
    if not found:
        return ops.full((site.shape[0],), float("nan"))
    return _norm(ops.stack(found, axis=-1))


def _orthogonality_error(site, values):
    """Of the kernel of each layer; NaN if it has none that is a matrix."""
    for variable in site.layer.variables:
        value = _by_layer(site, values[id(variable)])
        if variable.name == "kernel" and len(value.shape) == 3:
            return orthogonal.orthogonality_error(value)
    return ops.full((site.shape[0],), float("nan"))
