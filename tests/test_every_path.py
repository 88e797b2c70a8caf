"""Every path through a stack gives the same numbers.

What trains, what is returned for each layer, what a frozen, a probed and a checkpointed
stack compute, and what its layers compute one after the other.
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from catalogue import BLOCKS
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.layers import DepthStack, ROAFDense

DEPTH, UNITS, BATCH = 4, 6, 8
IS_JAX = keras.backend.backend() == "jax"


@keras.saving.register_keras_serializable("tests")
class SmallAttention(keras.layers.Layer):
    """Attention alone: it is most of what this file compiles."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.heads = keras.layers.MultiHeadAttention(2, 3, use_bias=False)

    def build(self, input_shape):
        self.heads.build(input_shape, input_shape)

    def call(self, x):
        return x + self.heads(x, x)


NAMES = ("orthogonal dense", "batch norm dense", "roaf dense", "dense")
MADE = {
    **{name: BLOCKS[name] for name in NAMES},
    "attention": lambda units: SmallAttention(),
}
# Between paths through a stack, and between a stack and its layers, which round what
# passes between them to the dtype of their policy.
TOLERANCES = {
    "float32": (1e-5, 1e-5),
    "float64": (1e-10, 1e-10),
    "mixed_bfloat16": (5e-2, 1e-1),
}


# Float64 tells more than float32; Keras on JAX has none.
POLICIES = ("float32" if IS_JAX else "float64", "mixed_bfloat16")


@pytest.fixture(params=POLICIES)
def policy(request):
    before = keras.config.floatx(), keras.config.dtype_policy()
    if request.param == "float64":
        keras.config.set_floatx("float64")
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def sample(name):
    shape = (BATCH, 3, UNITS) if name == "attention" else (BATCH, UNITS)
    return np.random.default_rng(0).normal(size=shape).astype(keras.config.floatx())


class Paths:
    """One stack, and what it computes by each path."""

    def __init__(self, name):
        self.x = sample(name)
        self.stack = DepthStack(MADE[name](UNITS), DEPTH)
        self.stack.build(self.x.shape)

    def twin(self, **changed):
        config = {**self.stack.get_config(), **changed}
        stack = DepthStack.from_config(config)
        stack.build(self.x.shape)
        stack.set_weights(self.stack.get_weights())
        return stack

    def calls(self, training):
        """By path: a function of an input and of probes, and the weights it has.

        It returns the output, and those of all layers or `()`.
        """
        sequences, frozen = self.twin(return_sequences=True), self.twin()
        frozen.trainable = False
        layers = [self.stack.layer_at(i) for i in range(DEPTH)]

        def of(stack):
            return lambda x, _: (stack(x, training=training), ())

        def returned(x, _):
            every = ops.moveaxis(sequences(x, training=training), 1, 0)
            return every[-1], every

        def probed(x, probes):
            return self.stack.observe(x, probes=probes, training=training)[:2]

        def one_by_one(x, probes):
            every = []
            for i, layer in enumerate(layers):
                x = layer(x, training=training) + probes[i]
                every.append(x)
            return x, ops.stack(every)

        checkpointed, weights = (
            self.twin(checkpoint_every=2),
            self.stack.trainable_variables,
        )
        return {
            "stack": (of(self.stack), weights),
            "sequences": (returned, sequences.trainable_variables),
            "frozen": (of(frozen), frozen.trainable_variables),
            "probed": (probed, weights),
            "checkpointed": (of(checkpointed), checkpointed.trainable_variables),
            "layers": (one_by_one, [v for z in layers for v in z.trainable_variables]),
        }

    def measured(self, training):
        """A `Found` of each path.

        All paths are one program, which costs less to compile than one for each.
        """
        calls = self.calls(training)
        probes = np.zeros((DEPTH, *self.x.shape), self.stack.compute_dtype)

        def program(x, probes, values):
            return {
                path: self.differentiated(*call, [x, probes, *values[path]])
                for path, call in calls.items()
            }

        tensors = map(ops.convert_to_tensor, (self.x, probes))
        values = {
            path: [_backend.read(v) for v in weights]
            for path, (_, weights) in calls.items()
        }
        found = without_and_with_xla(program, *tensors, values)
        return {path: Found(*outputs) for path, outputs in found.items()}

    def differentiated(self, call, weights, arguments):
        def loss(tensors):
            x, probes, *values = tensors
            with keras.StatelessScope(zip(weights, values, strict=True)):
                y, every = call(x, probes)
            return ops.sum(ops.square(ops.cast(y, self.x.dtype))), (y, every)

        _, (y, every), gradients = _backend.value_and_gradients(loss, arguments)
        of_x, of_probes, *of_weights = gradients
        return y, every, of_x, of_probes, of_weights


class Found(NamedTuple):
    """Outputs, and gradients of a sum of squares, without XLA and with it.

    These two are a first axis of each array. What a path does not have is `()`.
    """

    y: np.ndarray
    every: np.ndarray
    of_x: np.ndarray
    of_probes: np.ndarray
    of_weights: list

    def stacked(self):
        """With the weights of layers stacked as those of a stack."""
        by_layer = np.split(np.arange(len(self.of_weights)), DEPTH)
        of_weights = [
            np.stack([self.of_weights[i] for i in same], axis=1)
            for same in zip(*by_layer, strict=True)
        ]
        return self._replace(of_weights=of_weights)

    @property
    def trained(self):
        return self.y, self.of_x, *self.of_weights


def without_and_with_xla(program, *arguments):
    """What a program returns, as arrays. On TensorFlow, it is traced once for both."""
    if IS_JAX:
        compiled = _backend.compiled(program, True)
    else:
        import tensorflow as tf

        program = tf.function(program, autograph=False)
        program = traced = program.get_concrete_function(*arguments)
        compiled = _backend.compiled(lambda *arguments: traced(*arguments), True)
    both = program(*arguments), compiled(*arguments)
    return keras.tree.map_structure(lambda *x: np.stack([*map(array, x)]), *both)


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float64" if not IS_JAX else None))


def assert_close(these, those, tolerance):
    for ours, theirs in zip(these, those, strict=True):
        scale = max(1.0, np.abs(theirs).max())
        assert np.abs(ours - theirs).max() <= tolerance * scale


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_every_path_gives_the_same_numbers(name, policy):
    between_paths, to_layers = TOLERANCES[policy]
    paths, frozen = Paths(name), []
    # In training, only batch normalization computes something else.
    for training in (True, False) if name == "batch norm dense" else (False,):
        found = paths.measured(training)
        stack, layers = found["stack"], found["layers"].stacked()
        assert_close(stack.trained, layers.trained, to_layers)
        for path in ("sequences", "checkpointed", "probed"):
            assert_close(found[path].trained, stack.trained, between_paths)
        for path in ("sequences", "probed"):
            assert_close([found[path].every], [layers.every], to_layers)
        assert_close([found["probed"].of_probes], [layers.of_probes], to_layers)
        frozen.append(found["frozen"])
    for one in frozen:  # with frozen statistics, it is evaluation
        assert one.of_weights == []
        assert_close((one.y, one.of_x), (stack.y, stack.of_x), between_paths)


@pytest.mark.slow
def test_ten_thousand_layers_report_the_norm_that_they_train_with():
    """In mixed precision, whose rounding of the state in each layer would add up."""
    depth, x = 10_000, np.random.default_rng(0).normal(size=(2, 16)).astype("float32")
    norms = {}
    for dtype in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        block = ROAFDense(16, 1 - 3 / depth, filter="shift", filter_seed=0, dtype=dtype)
        stack = DepthStack(block, depth)
        trained = ops.norm(ops.cast(stack(x), "float32"))
        probes = ops.zeros((depth, 2, 16), stack.compute_dtype)
        _, outputs, _ = stack.observe(x, probes=probes)
        reported = ops.norm(ops.cast(outputs[-1], "float32"))
        np.testing.assert_allclose(trained, reported, rtol=1e-5)
        norms[dtype] = float(trained)
    np.testing.assert_allclose(norms["mixed_bfloat16"], norms["float32"], rtol=0.05)
