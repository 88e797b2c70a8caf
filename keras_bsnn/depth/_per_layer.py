"""Initializers, constraints and regularizers, applied to each layer of a stack."""

import copy
import functools
import json
from typing import Any

import keras
import numpy as np

from keras_bsnn import _backend

CONSTANT = (
    keras.initializers.Zeros,
    keras.initializers.Ones,
    keras.initializers.Constant,
    keras.initializers.Identity,
)
SEEDED = (  # they draw by `keras.random`, which takes a state from a generator
    keras.initializers.GlorotNormal,
    keras.initializers.GlorotUniform,
    keras.initializers.HeNormal,
    keras.initializers.HeUniform,
    keras.initializers.LecunNormal,
    keras.initializers.LecunUniform,
    keras.initializers.Orthogonal,
    keras.initializers.RandomNormal,
    keras.initializers.RandomUniform,
    keras.initializers.TruncatedNormal,
    keras.initializers.VarianceScaling,
)


class Initialized(keras.initializers.Initializer):
    """An initializer of `(depth, ...)` that draws anew for each layer.

    Args:
        initializer: the initializer of one layer's weight. It is called as it is: one
            with an attribute `seed` on a copy that has another seed for each layer.
    """

    def __init__(self, initializer):
        self.initializer = initializer

    def __call__(self, shape, dtype=None):
        depth, *shape = shape
        if getattr(self.initializer, "batched", False):
            return self.initializer((depth, *shape), dtype=dtype)
        if type(self.initializer) in CONSTANT:
            value = self.initializer(tuple(shape), dtype=dtype)
            return keras.ops.copy(keras.ops.broadcast_to(value, (depth, *shape)))
        if type(self.initializer) in SEEDED:
            return _drawn(self.initializer, depth, tuple(shape), dtype)
        values = [
            keras.ops.convert_to_tensor(draw(tuple(shape), dtype=dtype), dtype)
            for draw in _reseeded(self.initializer, depth)
        ]
        return keras.ops.stack(values)


class Values(keras.initializers.Initializer):
    """The values that the variables of layers have.

    Args:
        variables: the variables, one of each layer.
    """

    def __init__(self, variables):
        self.variables = variables

    def __call__(self, shape, dtype=None):
        values = [keras.ops.convert_to_numpy(v) for v in self.variables]
        return keras.ops.convert_to_tensor(np.stack(values), dtype)


class _State(keras.random.SeedGenerator):
    """A seed generator that gives one state, a tensor."""

    def __init__(self, state):
        self.value = state

    def next(self, ordered=True):
        return self.value


def _drawn(initializer, depth, shape, dtype):
    """Draws for each layer, by seeds that come from the initializer's."""
    config = {k: v for k, v in initializer.get_config().items() if k != "seed"}
    settings = json.dumps(config, default=float)
    dtype = keras.backend.standardize_dtype(dtype)
    kind: Any = type(initializer)
    draw = _drawing(kind, settings, depth, shape, dtype)
    return draw(seed_states(initializer.seed, depth))


@functools.lru_cache(maxsize=64)
def _drawing(kind, settings, depth, shape, dtype):
    """A loop over the layers, compiled once for all weights that are drawn so."""

    def loop(states):
        def step(i, carry):
            seeded = kind(**json.loads(settings), seed=_State(states[i]))
            return carry, seeded(shape, dtype=dtype)

        like = keras.KerasTensor(shape, dtype)
        return _backend.loop(step, (), depth, like=like)[1]

    return _backend.traced_once(loop)


def _reseeded(initializer, depth):
    """Yields an initializer for each layer."""
    seed = getattr(initializer, "seed", None)
    if isinstance(seed, bool) or not isinstance(seed, int):  # it draws anew each time
        yield from [initializer] * depth
        return
    for value in np.random.SeedSequence(seed).generate_state(depth).tolist():
        seeded = copy.copy(initializer)
        seeded.seed = value
        yield seeded


def seed_states(seed, depth):
    """`depth` independent states of seed generators, from a seed or a generator."""
    if isinstance(seed, keras.random.SeedGenerator):
        seed = keras.ops.convert_to_numpy(seed.next()).tolist()
    dtype = keras.random.SeedGenerator(0).state.dtype
    states = np.random.SeedSequence(seed).generate_state(2 * depth).reshape(depth, 2)
    return keras.ops.convert_to_tensor(states.astype(dtype))


class SeedStates(keras.initializers.Initializer):
    """An initializer of the states of random number generators.

    Args:
        state: the state of the block's generator, a list of integers.
    """

    batched = True

    def __init__(self, state):
        self.state = state

    def __call__(self, shape, dtype=None):
        return seed_states(self.state, shape[0])


def initializer_of(variable):
    """That of a stack, from the variable of a layer that was made without a value."""
    initializer = variable._initializer or _constant(variable)
    if variable.name == "seed_generator_state":
        state = initializer(variable.shape, dtype=variable.dtype)
        initializer = SeedStates(keras.ops.convert_to_numpy(state).tolist())
    return Initialized(initializer)


def leave_undrawn(variables):
    """Has variables that were made without values begin at zeros, not at random.

    Their values are those of each layer in turn: to draw others, which nobody sees,
    would take as long as to draw those of the layers.
    """
    for variable in variables:
        initializer = variable._initializer
        if type(initializer) in SEEDED and isinstance(initializer.seed, int):
            variable._initializer = keras.initializers.Zeros()


def _constant(variable):
    if variable.trainable:
        raise ValueError(
            f"The variable {variable.path!r} of `block` must be made in its `build` by "
            "`add_weight`, with an initializer: it would have the same value in every "
            "layer."
        )
    return keras.initializers.Constant(keras.ops.convert_to_numpy(variable))


class Constrained(keras.constraints.Constraint):
    """A constraint of `(depth, ...)` that acts on each layer.

    Args:
        constraint: the constraint of one layer's weight.

    Attributes:
        manifold, tolerance: those of the constraint, if it has them.
    """

    def __init__(self, constraint):
        self.constraint = constraint
        self.manifold = getattr(constraint, "manifold", None)
        self.tolerance = getattr(constraint, "tolerance", 0.0)

    def __call__(self, w):
        if getattr(self.constraint, "batched", False):
            return self.constraint(w)
        w = _backend.read(w)

        def step(i, carry):
            return carry, self.constraint(w[i])

        # Not vectorized_map: XLA cannot take that of a constraint that iterates.
        return _backend.loop(step, w[0], w.shape[0], like=w)[1]


class Regularized(keras.regularizers.Regularizer):
    """The sum of a regularizer over the layers of `(depth, ...)`."""

    def __init__(self, regularizer):
        self.regularizer = regularizer

    def __call__(self, w):
        each = keras.ops.vectorized_map(self.regularizer, _backend.read(w))
        return keras.ops.sum(each)
