"""Initializers, constraints and regularizers, applied to each layer of a stack."""

import contextlib

import keras
import numpy as np

from keras_bsnn import _backend

CONSTANT = (
    keras.initializers.Zeros,
    keras.initializers.Ones,
    keras.initializers.Constant,
    keras.initializers.Identity,
)


@contextlib.contextmanager
def recorded_initializers():
    """Yields a dict from the id of each weight that is made here to its initializer.

    A variable of Keras forgets its initializer once it has a value.
    """
    original = keras.layers.Layer.add_weight
    found = {}

    def add_weight(layer, *args, initializer=None, **kwargs):
        variable = original(layer, *args, initializer=initializer, **kwargs)
        given = args[1] if len(args) > 1 else initializer
        is_float = keras.backend.is_float_dtype(variable.dtype)
        default = "glorot_uniform" if is_float else "zeros"
        found[id(variable)] = keras.initializers.get(given or default)
        return variable

    keras.layers.Layer.add_weight = add_weight
    try:
        yield found
    finally:
        keras.layers.Layer.add_weight = original


class Initialized:
    """An initializer of `(depth, ...)` that draws anew for each layer.

    Args:
        initializer: of one layer.
    """

    def __init__(self, initializer):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        depth, *shape = shape
        if getattr(self.initializer, "batched", False):
            return self.initializer((depth, *shape), dtype=dtype)
        if isinstance(self.initializer, CONSTANT):
            value = self.initializer(tuple(shape), dtype=dtype)
            return keras.ops.broadcast_to(value, (depth, *shape))
        if hasattr(self.initializer, "seed"):
            return _drawn(self.initializer, depth, tuple(shape), dtype)
        return keras.ops.stack(
            [self.initializer(tuple(shape), dtype=dtype) for _ in range(depth)]
        )


def _drawn(initializer, depth, shape, dtype):
    """One compiled loop over the layers, whose seeds come from the initializer's."""
    seeded = type(initializer).from_config(initializer.get_config())
    seeded.seed = generator = keras.random.SeedGenerator(0)
    states = seed_states(initializer.seed, depth)

    def step(i, carry):
        with keras.StatelessScope([(generator.state, states[i])]):
            return carry, (seeded(shape, dtype=dtype),)

    def loop(states):
        return _backend.loop(step, states[0], depth, [dtype])[1][0]

    return _backend.traced_once(loop)(states)


def seed_states(seed, depth):
    """`depth` independent states of seed generators, from a seed or a generator."""
    if isinstance(seed, keras.random.SeedGenerator):
        seed = keras.ops.convert_to_numpy(seed.next()).tolist()
    dtype = keras.random.SeedGenerator(0).state.dtype
    states = np.random.SeedSequence(seed).generate_state(2 * depth).reshape(depth, 2)
    return keras.ops.convert_to_tensor(states.astype(dtype))


class Constrained:
    """A constraint of `(depth, ...)` that acts on each layer."""

    def __init__(self, constraint):
        self.constraint = constraint

    def __call__(self, w):
        if getattr(self.constraint, "batched", False):
            return self.constraint(w)
        w = _backend.read(w)

        def step(i, carry):
            return carry, (self.constraint(w[i]),)

        # Not vectorized_map: XLA cannot take that of a constraint that iterates.
        return _backend.loop(step, w[0], w.shape[0], [w.dtype])[1][0]


class Regularized:
    """The sum of a regularizer over the layers of `(depth, ...)`."""

    def __init__(self, regularizer):
        self.regularizer = regularizer

    def __call__(self, w):
        each = keras.ops.vectorized_map(self.regularizer, _backend.read(w))
        return keras.ops.sum(each)
