"""Every path through a stack gives the same numbers.

What trains, what is returned for each layer, what a frozen, a probed and a checkpointed
stack compute, and what its layers compute one after the other.
"""

import keras
import numpy as np
import pytest
from catalogue import BLOCKS
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.layers import DepthStack, ROAFDense

DEPTH, UNITS, BATCH = 4, 6, 8
IS_JAX = keras.backend.backend() == "jax"

NAMES = ("orthogonal dense", "batch norm dense", "roaf dense", "dense", "attention")
# Between paths through a stack, and between a stack and its layers, which round what
# passes between them to the dtype of their policy.
TOLERANCES = {
    "float32": (1e-5, 1e-5),
    "float64": (1e-10, 1e-10),
    "mixed_bfloat16": (5e-2, 1e-1),
}


@pytest.fixture(params=TOLERANCES)
def policy(request):
    if request.param == "float64" and IS_JAX:
        pytest.skip("Keras on JAX has no float64")
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
    """Outputs and gradients of one stack, by path.

    Each path returns the output, the outputs of all layers or `None`, and the gradients
    of a sum of squares with respect to the input and to the weights, stacked: without
    XLA and with it, along a first axis.
    """

    def __init__(self, name):
        self.x = sample(name)
        self.stack = DepthStack(BLOCKS[name](UNITS), DEPTH)
        self.stack.build(self.x.shape)

    def twin(self, **changed):
        config = {**self.stack.get_config(), **changed}
        stack = DepthStack.from_config(config)
        stack.build(self.x.shape)
        stack.set_weights(self.stack.get_weights())
        return stack

    def measured(self, call, weights):
        """`call(x, probes)` returns an output and the outputs of all layers."""
        probes = np.zeros((DEPTH, *self.x.shape), self.stack.compute_dtype)

        def function(x, probes, *values):
            def loss(tensors):
                x, probes, *values = tensors
                with keras.StatelessScope(zip(weights, values, strict=True)):
                    y, every = call(x, probes)
                return ops.sum(ops.square(ops.cast(y, self.x.dtype))), (y, every)

            arguments = [x, probes, *values]
            _, found, gradients = _backend.value_and_gradients(loss, arguments)
            return found, gradients

        tensors = [ops.convert_to_tensor(z) for z in (self.x, probes)]
        return without_and_with_xla(function, *tensors, *map(_backend.read, weights))

    def of(self, stack, training, call=None):
        call = call or (lambda x, probes: (stack(x, training=training), ()))
        (y, every), (of_x, of_probes, *of_weights) = self.measured(
            call, stack.trainable_variables
        )
        return y, every, of_x, of_weights, of_probes

    def one_by_one(self, training):
        layers = [self.stack.layer_at(i) for i in range(DEPTH)]
        weights = [v for layer in layers for v in layer.trainable_variables]

        def call(x, probes):
            every = []
            for i, layer in enumerate(layers):
                x = layer(x, training=training)
                x = x + probes[i]
                every.append(x)
            return x, ops.stack(every)

        found = self.measured(call, weights)
        (y, every), (of_x, of_probes, *of_weights) = found
        of_layers = np.split(np.arange(len(of_weights)), DEPTH)
        stacked = [
            np.stack([of_weights[i] for i in same], axis=1)
            for same in zip(*of_layers, strict=True)
        ]
        return y, every, of_x, stacked, of_probes


def without_and_with_xla(function, *tensors):
    """What a function returns, as arrays. On TensorFlow, it is traced once for both."""
    if IS_JAX:
        compiled = _backend.compiled(function, True)
    else:
        import tensorflow as tf

        function = tf.function(function, autograph=False)
        function = traced = function.get_concrete_function(*tensors)
        compiled = _backend.compiled(lambda *tensors: traced(*tensors), True)
    both = function(*tensors), compiled(*tensors)
    return keras.tree.map_structure(lambda *x: np.stack([*map(array, x)]), *both)


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float64" if not IS_JAX else None))


def assert_close(these, those, tolerance):
    for ours, theirs in zip(these, those, strict=True):
        scale = max(1.0, np.abs(theirs).max())
        assert np.abs(ours - theirs).max() <= tolerance * scale


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_path_gives_the_same_numbers(name, policy):
    between_paths, to_layers = TOLERANCES[policy]
    paths = Paths(name)
    # In training, only batch normalization computes something else.
    modes = (True, False) if name == "batch norm dense" else (False,)
    for training in modes:
        y, _, of_x, of_weights, _ = paths.of(paths.stack, training)
        expected = y, of_x, *of_weights
        layers = paths.one_by_one(training)
        assert_close(expected, (layers[0], layers[2], *layers[3]), to_layers)

        sequences = paths.twin(return_sequences=True)

        def last(x, _, training=training, stack=sequences):
            every = ops.moveaxis(stack(x, training=training), 1, 0)
            return every[-1], every

        y, every, of_x, of_weights, _ = paths.of(sequences, training, last)
        assert_close((y, of_x, *of_weights), expected, between_paths)
        assert_close([every], [layers[1]], to_layers)

        checkpointed = paths.twin(checkpoint_every=2)
        y, _, of_x, of_weights, _ = paths.of(checkpointed, training)
        assert_close((y, of_x, *of_weights), expected, between_paths)

        def probed(x, probes, training=training):
            found = paths.stack.observe(x, probes=probes, training=training)
            return found[:2]

        y, every, of_x, of_weights, of_probes = paths.of(paths.stack, training, probed)
        assert_close((y, of_x, *of_weights), expected, between_paths)
        assert_close((every, of_probes), (layers[1], layers[4]), to_layers)

    frozen = paths.twin()
    frozen.trainable = False
    for training in modes:  # with frozen statistics, it is evaluation
        y, _, of_x, of_weights, _ = paths.of(frozen, training)
        assert of_weights == []
        assert_close((y, of_x), expected[:2], between_paths)


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
