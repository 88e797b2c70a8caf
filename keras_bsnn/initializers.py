"""Initializers of orthogonal kernels."""

import random

import keras
import numpy as np

from keras_bsnn._public import public
from keras_bsnn.ops import _check, orthogonal

LARGEST_PIECE = 2**23  # entries


@public
class HaarOrthogonal(keras.initializers.Initializer):
    """Orthogonal matrices drawn from the Haar (uniform) law.

    Tall matrices have orthonormal columns, wide ones orthonormal rows. Leading axes of
    the shape are a batch of independent matrices.

    Args:
        gain: factor of the matrix, a finite number.
        seed: an integer in [0, 2**32), a `keras.random.SeedGenerator`, or `None`. With
            an integer, every call returns the same values, as with the initializers of
            Keras. With `None`, every call draws anew, so that layers never share
            weights, and `keras.utils.set_random_seed` makes the draws reproducible.

    Raises:
        ValueError: `gain` or `seed` is not of the kind above, or the shape has fewer
            than two axes.

    Source: Mezzadri, Notices of the AMS 54 (2007) 592: QR of a Gaussian matrix, with
    the signs of the diagonal of R.

    Example:

    >>> import keras_bsnn
    >>> w = keras_bsnn.initializers.HaarOrthogonal(seed=0)((10, 4, 4))
    >>> bool((keras_bsnn.ops.orthogonal.orthogonality_error(w) < 1e-5).numpy().all())
    True
    """

    batched = True  # leading axes are a batch, DepthStack asks for it

    def __init__(self, gain=1.0, seed=None):
        _check.number("gain", gain)
        if not isinstance(seed, keras.random.SeedGenerator):
            _check.seed("seed", seed)
        self.gain = gain
        self.seed = seed

    def __call__(self, shape, dtype=None):
        if len(shape) < 2:
            raise ValueError(
                f"`shape` must have at least two axes. Received: shape={tuple(shape)}"
            )
        *batch, rows, columns = shape
        tall = (*batch, max(rows, columns), min(rows, columns))
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        # As Keras does: drawn by Python, which JAX allows also while it traces.
        seed = random.randrange(2**31) if self.seed is None else self.seed
        at_least_float32 = keras.backend.result_type(dtype, "float32")
        normal = keras.random.normal(tall, dtype=at_least_float32, seed=seed)
        q = _in_pieces(orthogonal.qr, normal)
        q = keras.ops.swapaxes(q, -1, -2) if rows < columns else q
        q = q if self.gain == 1 else self.gain * q
        return keras.ops.cast(q, dtype)

    def get_config(self):
        seed = keras.saving.serialize_keras_object(self.seed)
        return {"gain": self.gain, "seed": seed}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "seed", "a seed", deserialize))


@public
class DepthDecay(keras.initializers.Initializer):
    """`scale * (l + 1) ** -exponent` for layer `l`, counted from 0, of a `DepthStack`.

    As the gain before a tanh or a sine it lets them bend less and less with depth: a
    layer of small gain `g` adds about `g ** 3 / 8` to the logarithm of the gradient, a
    sum that is finite for an exponent above 1/3. The larger the exponent, the sooner a
    network is linear; 0.4 is just above.

    Args:
        exponent: a finite number.
        scale: a finite number, that of the first layer.

    Source: Meterez et al., arXiv 2310.02012, section 5.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.initializers.DepthDecay()((3,)).numpy().round(3).tolist()
    [1.0, 0.758, 0.644]
    """

    batched = True  # the first axis is that of the layers

    def __init__(self, exponent=0.4, scale=1.0):
        for name, value in (("exponent", exponent), ("scale", scale)):
            _check.number(name, value)
        self.exponent = exponent
        self.scale = scale

    def __call__(self, shape, dtype=None):
        depth, *rest = shape or (1,)
        values = self.scale * np.arange(1.0, depth + 1) ** -self.exponent
        values = np.broadcast_to(values.reshape(-1, *[1] * len(rest)), (depth, *rest))
        return keras.ops.convert_to_tensor(values.reshape(shape), dtype)

    def get_config(self):
        return {"exponent": self.exponent, "scale": self.scale}


def _in_pieces(function, x):
    """`function` of parts of a large batch, whose temporaries then stay small."""
    if len(x.shape) == 2 or np.prod(x.shape) <= LARGEST_PIECE:
        return function(x)
    size = max(1, int(LARGEST_PIECE / np.prod(x.shape[1:])))
    pieces = [function(x[i : i + size]) for i in range(0, x.shape[0], size)]
    return keras.ops.concatenate(pieces)
