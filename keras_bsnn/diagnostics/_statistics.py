"""Statistics of outputs, gradients and weights, layer by layer."""

import itertools
import math

import keras
from keras import ops

from keras_bsnn import manifolds
from keras_bsnn._parts import parts

SAMPLES = 32  # whose isometry gap is taken, at most


def of_outputs(h):
    """Returns the statistics of outputs, given in shape `(depth, batch, ...)`."""
    h = ops.cast(_flat(h, keep=2), "float32")
    return {
        "mean": ops.mean(h, axis=(1, 2)),
        "root_mean_square": norm(h) / math.sqrt(h.shape[1] * h.shape[2]),
        "cosine_similarity": _cosine_similarity(h),
        "samples": h[:, : _isometry_samples(h.shape[-1])],
    }


def of_weights(site, values, gradients):
    """Returns the statistics of the weights of the layers at a `Site`.

    Args:
        site: the site, of `site.shape[0]` layers.
        values: dict from the id of each variable of the model to its value.
        gradients: dict from the id of each variable that is trained to its gradient.
    """
    depth = site.shape[0]
    trained = [v for v in site.layer.trainable_variables if id(v) in gradients]
    count = sum(math.prod(v.shape) for v in site.layer.trainable_variables)
    norms = [norm(ops.reshape(gradients[id(v)], (depth, -1))) for v in trained]
    errors = [
        ops.max(ops.reshape(manifold.error(values[id(kernel)]), (depth, -1)), axis=-1)
        for kernel, manifold in _kernels(site.layer)
    ]
    nothing = ops.full((depth,), float("nan"))
    return {
        "parameters": ops.full((depth,), count // depth),
        "weight_gradient": norm(ops.stack(norms, axis=-1)) if norms else nothing,
        "orthogonality_error": ops.max(ops.stack(errors), 0) if errors else nothing,
    }


def _kernels(layer):
    """Returns pairs of a kernel and its manifold.

    They are the weights that a constraint keeps on a manifold, or else the first one
    that is a matrix in each layer of a stack.
    """
    pairs = [(weight, part.stacked) for part in parts(layer) for weight in part.weights]
    matrices = (
        (weight, manifolds.Stiefel())
        for weight, stacked in pairs
        if len(weight.shape) - len(stacked) == 2
        and keras.backend.is_float_dtype(weight.dtype)
    )
    constrained = list(manifolds.constrained(weight for weight, _ in pairs))
    return constrained or list(itertools.islice(matrices, 1))


def norm(x, keep=1):
    """Norm over all but the first axes, without underflow or overflow on the way."""
    x = ops.cast(_flat(x, keep), "float32")
    largest = ops.max(ops.abs(x), axis=-1)
    scale = ops.where(largest > 0, largest, 1.0)
    return scale * ops.sqrt(ops.sum(ops.square(x / scale[..., None]), axis=-1))


def _flat(x, keep):
    return ops.reshape(x, (*x.shape[:keep], -1))


def _isometry_samples(features):
    """Returns how many: a square random matrix is nearly singular now and then."""
    return SAMPLES if features <= SAMPLES // 2 else min(SAMPLES, features // 2)


def _cosine_similarity(h):
    """Returns the mean over the pairs of samples that are not zero, NaN without one."""
    lengths = norm(h, keep=2)
    directions = h / ops.where(lengths == 0, 1.0, lengths)[..., None]
    count = ops.sum(ops.cast(lengths > 0, "float32"), axis=1)
    total = ops.sum(ops.square(ops.sum(directions, axis=1)), axis=-1)
    pairs = count * (count - 1)
    is_known = (pairs > 0) & ops.all(ops.isfinite(lengths), axis=1)
    return ops.where(is_known, (total - count) / ops.maximum(pairs, 1.0), float("nan"))
