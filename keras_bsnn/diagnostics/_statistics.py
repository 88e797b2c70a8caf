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


def of_weights(sites, values, gradients):
    """Returns the statistics of the weights of the layers at several `Site`s.

    Args:
        sites: the sites, whose layers have weights of the same shapes.
        values: dict from the id of each variable of the model to its value.
        gradients: dict from the id of each variable that is trained to its gradient.
    """
    depths = [site.shape[0] for site in sites]
    variables = [site.layer.trainable_variables for site in sites]
    count = sum(math.prod(v.shape) for v in variables[0]) // depths[0]
    nothing = ops.full((sum(depths),), float("nan"))
    norms = [
        norm(joined([ops.reshape(gradients[id(v)], (n, -1)) for v, n in pairs]))
        for pairs in (
            list(zip(alike, depths, strict=True))
            for alike in zip(*variables, strict=True)
        )
        if all(id(v) in gradients for v, _ in pairs)
    ]
    errors = [_orthogonality_error(site, values) for site in sites]
    return {
        "parameters": ops.full((sum(depths),), count),
        "weight_gradient": norm(ops.stack(norms, axis=-1)) if norms else nothing,
        "orthogonality_error": joined(errors),
    }


def _orthogonality_error(site, values):
    """Returns the largest error of a kernel, for each layer of a site, or NaN."""
    depth = site.shape[0]
    errors = [
        ops.max(ops.reshape(manifold.error(values[id(kernel)]), (depth, -1)), axis=-1)
        for kernel, manifold in _kernels(site.layer)
    ]
    return ops.max(ops.stack(errors), 0) if errors else ops.full((depth,), float("nan"))


def joined(tensors):
    """Joins tensors along the axis of the layers."""
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors)


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
