"""Initializers of orthogonal kernels."""

import keras
import numpy as np
from typing_extensions import Self

from keras_bsnn import manifolds
from keras_bsnn._types import Config, Tensor
from keras_bsnn.ops import _check

__all__ = ["DeltaOrthogonal", "DepthDecay", "HaarOrthogonal"]


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
        self.gain = _check.number("gain", gain)
        self.seed = _seed(seed)
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
        return cls(**_with_seed(config))


@keras.saving.register_keras_serializable(package="keras_bsnn")
class DeltaOrthogonal(keras.initializers.Initializer):
    """Kernels of convolutions: an orthogonal matrix in the middle, and 0 around it.

    The matrix is drawn from the Haar (uniform) distribution. A convolution of stride 1
    then starts as the same orthogonal map of the channels of every pixel, which keeps
    all lengths, under any padding that keeps the size of the image. With more filters
    than input channels the rows of the matrix are orthonormal, otherwise the columns.

    In `keras_bsnn.layers.OrthogonalConv2D` it stands for matrices whose product is such
    a kernel, from which training moves to all taps.

    Args:
        gain: Finite number that multiplies the matrix. Defaults to 1.
        seed: Integer in [0, 2**32), `keras.random.SeedGenerator`, or `None`, as of
            `HaarOrthogonal`. Defaults to `None`.
        groups: Positive integer, the `groups` of the convolution, of which each has a
            matrix of its own. Defaults to 1.

    Call arguments:
        shape: Tuple of integers, `(*kernel_size, channels / groups, filters)` with one
            or more axes of space, as of the kernels of `keras.layers.Conv1D`, `Conv2D`
            and `Conv3D`. The middle of an even number of taps is the one before the
            centre, `(kernel_size - 1) // 2`: where `padding="same"` has the pixel
            itself.
        dtype: String, the dtype. Defaults to `keras.config.floatx()`.

    Returns:
        Tensor of that shape and dtype.

    Raises:
        ValueError: If an argument is not as described, if the shape has fewer than
            three axes, or if `groups` does not divide its last one.

    Source: Xiao et al., arXiv 1806.05393, algorithm 1.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras.layers.Conv2D(
    ...     8, 3, kernel_initializer=keras_bsnn.initializers.DeltaOrthogonal()
    ... )
    >>> layer.build((None, 7, 7, 8))
    >>> keras.ops.max(abs(layer.kernel), axis=(2, 3)).numpy().astype(bool).tolist()
    [[False, False, False], [False, True, False], [False, False, False]]
    """

    # Not batched: with an axis of layers, a kernel of two axes of space is like one of
    # three.

    def __init__(
        self,
        gain: float = 1.0,
        seed: int | keras.random.SeedGenerator | None = None,
        groups: int = 1,
    ):
        self.gain = _check.number("gain", gain)
        self.seed = _seed(seed)
        self.groups = _check.integer("groups", groups)

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        *space, channels, filters = _kernel_shape(shape, self.groups)
        sizes = (self.groups, channels, filters // self.groups)
        matrices = manifolds.Stiefel().sample(sizes, self.gain, self.seed, dtype)
        columns = keras.ops.transpose(matrices, (1, 0, 2))
        tap = keras.ops.reshape(columns, (*[1] * len(space), channels, filters))
        around = [((k - 1) // 2, k // 2) for k in space]
        return keras.ops.pad(tap, [*around, (0, 0), (0, 0)])

    def get_config(self) -> Config:
        seed = keras.saving.serialize_keras_object(self.seed)
        return {"gain": self.gain, "seed": seed, "groups": self.groups}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**_with_seed(config))


def _kernel_shape(shape, groups):
    kind = "of the form (*kernel_size, channels, filters), with an axis of space"
    if len(shape) < 3:
        raise _check.refusal("shape", kind, tuple(shape))
    if shape[-1] % groups:
        kind = f"one whose last axis, the filters, is divisible by groups={groups}"
        raise _check.refusal("shape", kind, tuple(shape))
    return tuple(shape)


def _seed(seed):
    if isinstance(seed, keras.random.SeedGenerator):
        return seed
    return _check.seed("seed", seed)


def _with_seed(config):
    deserialize = keras.saving.deserialize_keras_object
    return _check.deserialized(config, "seed", "a seed", deserialize)


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
