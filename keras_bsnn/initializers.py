"""Initializers of orthogonal kernels."""

import keras
import numpy as np
from typing_extensions import Self

from keras_bsnn import manifolds
from keras_bsnn._types import Config, Tensor
from keras_bsnn.ops import _check

__all__ = ["DepthDecay", "HaarOrthogonal"]


@keras.saving.register_keras_serializable(package="keras_bsnn")
class HaarOrthogonal(keras.initializers.Initializer):
    """Orthogonal matrices drawn from the Haar (uniform) distribution.

    Tall matrices have orthonormal columns, wide ones orthonormal rows. Leading axes of
    the shape are a batch of independent matrices.

    Args:
        gain: Finite number that multiplies the matrix. Defaults to 1.
        seed: Integer in [0, 2**32), `keras.random.SeedGenerator`, or `None`. With an
            integer, every call returns the same values, as with the initializers of
            Keras. With `None`, every call draws anew, so that layers never share
            weights, and `keras.utils.set_random_seed` makes the draws reproducible.
            Defaults to `None`.
        manifold: A `keras_bsnn.manifolds.Stiefel`, which says which axes of the shape
            are rows and columns. Defaults to `None`, which stands for `Stiefel()`: the
            last two axes.

    Call arguments:
        shape: Tuple of integers, the shape of the weight.
        dtype: String, the dtype. Defaults to `keras.config.floatx()`.

    Returns:
        Tensor of that shape and dtype.

    Raises:
        ValueError: If an argument is not as described, or if the shape has fewer axes
            than the manifold.

    Source: Mezzadri, Notices of the AMS 54 (2007) 592: QR of a Gaussian matrix, with
    the signs of the diagonal of R.

    Example:

    >>> import keras_bsnn
    >>> w = keras_bsnn.initializers.HaarOrthogonal(seed=0)((10, 4, 4))
    >>> bool((keras_bsnn.ops.orthogonal.orthogonality_error(w) < 1e-5).numpy().all())
    True
    """

    batched = True  # it takes a leading axis of the layers of a `DepthStack`

    def __init__(
        self,
        gain: float = 1.0,
        seed: int | keras.random.SeedGenerator | None = None,
        manifold: manifolds.Stiefel | None = None,
    ):
        gain = _check.number("gain", gain)
        if not isinstance(seed, keras.random.SeedGenerator):
            seed = _check.seed("seed", seed)
        self.gain = gain
        self.seed = seed
        self.manifold = manifolds.get(manifold)

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        return self.manifold.sample(shape, self.gain, self.seed, dtype)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            "gain": self.gain,
            "seed": serialize(self.seed),
            "manifold": self.manifold.to_dict(),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "seed", "a seed", deserialize))


@keras.saving.register_keras_serializable(package="keras_bsnn")
class DepthDecay(keras.initializers.Initializer):
    """`scale * (l + 1) ** -exponent` for layer `l`, counted from 0, of a `DepthStack`.

    As a gain before a tanh or a sine, it makes the activations more and more linear
    with depth. A layer with a small gain `g` adds about `g ** 3 / 8` to the logarithm
    of the gradient: over all layers, the sum of these is finite if the exponent is
    above 1/3, and the default is just above. A larger exponent makes a network linear
    earlier.

    Args:
        exponent: Finite number. Defaults to 0.4.
        scale: Finite number, the value of the first layer. Defaults to 1.

    Call arguments:
        shape: Tuple of integers, `(depth, ...)`; `()` for the first layer alone.
        dtype: String, the dtype. Defaults to `keras.config.floatx()`.

    Returns:
        Tensor of that shape and dtype.

    Raises:
        ValueError: If an argument is not a finite number.

    Source: Meterez et al., arXiv 2310.02012, section 5.

    Example:

    >>> import keras_bsnn
    >>> keras_bsnn.initializers.DepthDecay()((3,)).numpy().round(3).tolist()
    [1.0, 0.758, 0.644]
    """

    batched = True  # the first axis is that of the layers

    def __init__(self, exponent: float = 0.4, scale: float = 1.0):
        self.exponent = _check.number("exponent", exponent)
        self.scale = _check.number("scale", scale)

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        depth, *rest = shape or (1,)
        values = self.scale * np.arange(1.0, depth + 1) ** -self.exponent
        values = np.broadcast_to(values.reshape(-1, *[1] * len(rest)), (depth, *rest))
        return keras.ops.convert_to_tensor(values.reshape(shape), dtype)

    def get_config(self) -> Config:
        return {"exponent": self.exponent, "scale": self.scale}
