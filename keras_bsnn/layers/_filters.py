"""Fixed orthogonal maps of the features, from a full random matrix to a mere shift."""

import random

import numpy as np
from keras import ops

from keras_bsnn.ops import _check

LARGEST_PIECE = 2**22  # entries


class Filter:
    """The identity, and the methods that other filters override.

    A filter has no parameters, or one tensor of them, which is drawn once and not
    trained: `draw(units, count, rng)` returns those of `count` independent filters, of
    shape `(count, *shape(units))`. After this tensor, `apply` and `adjoint` take those
    of `common(units, rng)`, a list of arrays that all layers share, which are made from
    the seed and not stored.

    Attributes:
        dtype: String, the dtype of the parameters.
        has_common: Boolean, whether there are arrays that all layers share.
    """

    dtype = "float32"
    has_common = False

    def shape(self, units):
        """The shape of the parameters, `None` if there are none."""
        return None

    def common(self, units, rng):
        """A list of the arrays that all layers share."""
        return []

    def apply(self, x, *parameters):
        """Maps the features of `x`, along its last axis."""
        return x

    def adjoint(self, x, *parameters):
        """The inverse, which is the transpose."""
        return x


class Shift(Filter):
    """A cyclic shift by one, of slices: LiteRT lacks `ops.roll`, which is slower."""

    def apply(self, x):
        return ops.concatenate([x[..., -1:], x[..., :-1]], axis=-1)

    def adjoint(self, x):
        return ops.concatenate([x[..., 1:], x[..., :1]], axis=-1)


class Haar(Filter):
    """A matrix of the uniform (Haar) distribution on the orthogonal matrices."""

    def shape(self, units):
        return (units, units)

    def draw(self, units, count, rng):
        size = max(1, LARGEST_PIECE // units**2)
        pieces = [min(size, count - i) for i in range(0, count, size)]
        return np.concatenate([_haar(units, n, rng) for n in pieces])

    def apply(self, x, matrix):
        return ops.matmul(x, ops.cast(matrix, x.dtype))

    def adjoint(self, x, matrix):
        return ops.matmul(x, ops.transpose(ops.cast(matrix, x.dtype)))


def _haar(units, count, rng):
    q, r = np.linalg.qr(rng.normal(size=(count, units, units)))
    signs = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return (q * signs[:, None]).astype("float32")


class SignedHaar(Filter):
    """Random signs of the features, and then a random matrix that all layers share.

    Each layer has a filter of its own, at `1 / units` of the memory of a matrix.
    """

    has_common = True

    def shape(self, units):
        return (units,)

    def draw(self, units, count, rng):
        return rng.choice([-1.0, 1.0], size=(count, units)).astype("float32")

    def common(self, units, rng):
        return [_haar(units, 1, rng)[0]]

    def apply(self, x, signs, matrix):
        signed = x * ops.cast(signs, x.dtype)
        return ops.matmul(signed, ops.cast(matrix, x.dtype))

    def adjoint(self, x, signs, matrix):
        straight = ops.matmul(x, ops.transpose(ops.cast(matrix, x.dtype)))
        return straight * ops.cast(signs, x.dtype)


class Permutation(Filter):
    """A random order of the features; the parameters are the order and its inverse."""

    dtype = "int32"

    def shape(self, units):
        return (2, units)

    def draw(self, units, count, rng):
        order = np.argsort(rng.uniform(size=(count, units)), axis=-1)
        return np.stack([order, np.argsort(order, axis=-1)], axis=1)

    def apply(self, x, orders):
        return ops.take(x, orders[0], axis=-1)

    def adjoint(self, x, orders):
        return ops.take(x, orders[1], axis=-1)


class Rotations(Filter):
    """Rotations of each pair of neighboring features by an angle of its own.

    With an odd number of features, the last one is kept.
    """

    def shape(self, units):
        return (2, units // 2)

    def draw(self, units, count, rng):
        angles = rng.uniform(0, 2 * np.pi, size=(count, units // 2))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def apply(self, x, parameters):
        return self._turn(x, parameters, 1)

    def adjoint(self, x, parameters):
        return self._turn(x, parameters, -1)

    def _turn(self, x, parameters, direction):
        parameters = ops.cast(parameters, x.dtype)
        cosines, sines = parameters[0], direction * parameters[1]
        paired = 2 * (x.shape[-1] // 2)
        a, b = x[..., 0:paired:2], x[..., 1:paired:2]
        turned = ops.stack([cosines * a - sines * b, sines * a + cosines * b], axis=-1)
        turned = ops.reshape(turned, (*ops.shape(x)[:-1], paired))
        return ops.concatenate([turned, x[..., paired:]], axis=-1)


FILTERS = {
    "haar": Haar(),
    "signed_haar": SignedHaar(),
    "rotations": Rotations(),
    "permutation": Permutation(),
    "shift": Shift(),
    "identity": Filter(),
}


def get(name: str) -> Filter:
    """The filter of a name.

    Raises:
        ValueError: If there is none.
    """
    if not isinstance(name, str) or name not in FILTERS:
        raise _check.refusal("filter", f"one of {', '.join(map(repr, FILTERS))}", name)
    return FILTERS[name]


def seed_of(value, filter, is_shared=False):
    """The seed of a layer, which needs one if its filter is not stored as a whole."""
    return seed(value, is_needed=is_shared or get(filter).has_common)


def seed(value, is_needed):
    """The given seed, or a random one instead of `None` if it is needed."""
    value = _check.seed("filter_seed", value)
    return random.randrange(2**31) if is_needed and value is None else value


class Drawn:
    """An initializer of the parameters of a filter.

    Args:
        filter: A `Filter`.
        units: Integer, the number of features.
        seed: Integer, or `None` to draw anew. The streams of `numpy.random.RandomState`
            are the same in every version of NumPy.
    """

    batched = True  # a leading axis is a batch of independent ones

    def __init__(self, filter, units, seed):
        self.filter = filter
        self.units = units
        self.seed = seed

    def __call__(self, shape, dtype=None):
        one = self.filter.shape(self.units)
        count = 1 if tuple(shape) == one else shape[0]
        values = self.draw(count).reshape(shape)
        return ops.convert_to_tensor(values, dtype or self.filter.dtype)

    def draw(self, count):
        rng = np.random.RandomState(seed(self.seed, is_needed=True))
        return self.filter.draw(self.units, count, rng)


def parameters(layer, units, is_stored=True):
    """The parameters of `layer.filter`, in two lists, either of which may be empty.

    The first are weights of the layer that are not trained, if `is_stored`; the second
    are arrays, made from the layer's seed.

    Args:
        layer: A layer with the attributes `filter` and `filter_seed`.
        units: Integer, the number of features.
        is_stored: Boolean, whether each layer has parameters of its own.
    """
    filter = get(layer.filter)
    shape = filter.shape(units)
    if shape is None:
        return [], []
    common = []
    if filter.has_common:
        # A stream other than that of the signs.
        common = filter.common(units, np.random.RandomState([layer.filter_seed]))
    drawn = Drawn(filter, units, layer.filter_seed)
    if not is_stored:
        return [], [drawn.draw(1)[0].astype(filter.dtype), *common]
    weight = layer.add_weight(
        name="filter",
        shape=shape,
        initializer=drawn,
        dtype=filter.dtype,
        trainable=False,
        autocast=False,
    )
    return [weight], common
