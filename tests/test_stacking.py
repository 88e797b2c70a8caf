"""Models whose equal layers became loops do what they did before."""

import keras
import numpy as np
import pytest
from arrays import assert_allclose, drawn
from backends import HAS_XLA
from keras import ops

from keras_bsnn.layers import DepthStack
from keras_bsnn.stacking import stack_layers, unstack

UNITS, TIMES = 8, 3
dense = keras.layers.Dense


def sequential():
    layers = [dense(UNITS, "tanh") for _ in range(5)]
    return keras.Sequential([keras.Input((UNITS,)), *layers, dense(2)])


def residual():
    """Parts of three calls, the sum of which is the input of the next."""
    x = inputs = keras.Input((UNITS,))
    for _ in range(4):
        y = keras.layers.LayerNormalization()(x)
        x = x + 0.5 * dense(UNITS, "gelu")(y)
    return keras.Model(inputs, dense(2)(x))


def alternating():
    """Two kinds of layers in turn, of which a third is left over."""
    x = inputs = keras.Input((UNITS,))
    for i in range(7):
        x = dense(UNITS, "tanh" if i % 2 else "gelu")(x)
    return keras.Model(inputs, dense(2)(x))


def attention():
    """A mask that all layers see, dropout, and two streams."""
    inputs = keras.Input((TIMES, UNITS)), keras.Input((TIMES, TIMES), dtype="bool")
    (x, mask), side = inputs, inputs[0]
    for _ in range(3):
        attend = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
        y = attend(x, side, attention_mask=mask, use_causal_mask=True)
        x, side = keras.layers.Add()([x, y]), dense(UNITS)(x)
    return keras.Model(inputs, [dense(2)(x), side])


def shared():
    """Two layers in turn, called again and again."""
    x = inputs = keras.Input((UNITS,))
    layers = [dense(UNITS, "tanh"), dense(UNITS, "gelu")]
    for layer in 3 * layers:
        x = layer(x)
    return keras.Model(inputs, dense(2)(x))


def nested():
    x = inputs = keras.Input((UNITS,))
    inner = sequential()
    return keras.Model(inputs, [dense(2)(inner(x)), inner(x)])


MODELS = {
    "sequential": (sequential, 1, "dense.* to dense.*: 5 equal parts became a loop"),
    "residual": (residual, 1, "4 equal parts of .* calls each became a loop"),
    "alternating": (alternating, 1, "3 equal parts of 2 calls each became a loop"),
    "attention": (attention, 1, "3 equal parts of 3 calls each became a loop"),
    "shared": (shared, 1, "3 equal parts of 2 calls each became a loop"),
    "nested": (nested, 1, "^sequential.*/dense.*: 5 equal parts became a loop"),
}


def data_of(model):
    def made(x):
        shape = (4, *x.shape[1:])
        return np.ones(shape, "bool") if x.dtype == "bool" else drawn(*shape)

    found = [made(x) for x in model.inputs]
    return found if len(found) > 1 else found[0]


def stacks(model):
    inner = [x for x in model.layers if isinstance(x, keras.Model)]
    own = [x for x in model.layers if isinstance(x, DepthStack)]
    return own + [stack for layer in inner for stack in stacks(layer)]


def trained(model, x, y):
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=HAS_XLA)
    return [model.train_on_batch(x, y) for _ in range(3)]


def assert_equal(ours, theirs, atol=1e-5):
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    for a, b in pairs:
        assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize("name", MODELS)
def test_a_stacked_model_is_the_model(name, tmp_path):
    """In predictions and training, saved and loaded, and as it was before."""
    make, loops, said = MODELS[name]
    model = make()
    x = data_of(model)
    y = keras.tree.map_structure(np.ones_like, model.predict(x, verbose=0))
    stacked = stack_layers(model)
    assert len(stacks(stacked)) == loops
    assert (len(stacked.weights) < len(model.weights)) == (name != "shared")
    with_words = pytest.raises(AssertionError, match=said)
    with with_words:
        raise AssertionError(stacked.report)
    assert_equal(stacked(x), model(x))
    before = unstack(stacked)
    assert_equal(before(x), model(x))
    if name != "attention":  # whose dropout draws other numbers
        assert_equal(trained(stacked, x, y), trained(before, x, y))
    expected = stacked(x)
    assert_equal(unstack(stacked)(x), expected)
    stacked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded(x), expected, atol=0)
    assert loaded.report == stacked.report
    assert type(unstack(loaded)) is type(model)


def test_what_is_outside_of_loops_is_shared():
    model = sequential()
    stacked = stack_layers(model)
    assert stacked.layers[-1] is model.layers[-1]
    assert unstack(stacked).layers[-1] is not model.layers[-1]


def chain(x, layers):
    outputs = []
    for layer in layers:
        x = layer(x)
        outputs.append(x)
    return outputs


def test_others_look_at_what_is_within_a_loop():
    inputs, layers = keras.Input((UNITS,)), [dense(UNITS) for _ in range(7)]
    outputs = chain(inputs, layers)
    model = keras.Model(inputs, [outputs[2], outputs[4] + outputs[2], outputs[-1]])
    stacked = stack_layers(model)
    assert [stack.depth for stack in stacks(stacked)] == [7]
    assert_equal(stacked(drawn(4, UNITS)), model(drawn(4, UNITS)))


def test_runs_end_where_a_layer_is_frozen():
    layers = [dense(UNITS) for _ in range(7)]
    model = keras.Sequential([keras.Input((UNITS,)), *layers])
    layers[4].trainable = False
    assert [stack.depth for stack in stacks(stack_layers(model))] == [4, 2]
    assert [stack.depth for stack in stacks(stack_layers(model, least=3))] == [4]


@keras.saving.register_keras_serializable("tests")
class Paired(keras.layers.Layer):
    """One that returns what the next takes by name, as layers of T5 do."""

    def build(self, input_shape):
        self.dense = dense(UNITS, "tanh")
        self.dense.build(input_shape)

    def call(self, x, bias=None):
        bias = ops.ones_like(x) if bias is None else bias
        return self.dense(x + bias), bias


def test_what_is_passed_on_beside_the_signal():
    x = inputs = keras.Input((UNITS,))
    bias = None
    for _ in range(4):
        x, bias = Paired()(x, bias=bias)
    model = keras.Model(inputs, x)
    stacked = stack_layers(model)
    assert [stack.depth for stack in stacks(stacked)] == [3]  # the first makes it
    assert_equal(stacked(drawn(4, UNITS)), model(drawn(4, UNITS)))


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "least", "message"),
    [
        (Subclassed, 2, "`inputs` must be given for a model .*'subclassed.*Subclassed"),
        (keras.Sequential, 2, "`model` must be a Keras model; a Sequential must be b"),
        (lambda: dense(3), 2, "`model` must be a Keras model"),
        (sequential, 1, "`least`"),
        (sequential, 2.5, "`least`"),
    ],
)
def test_bad_arguments(model, least, message):
    with pytest.raises(ValueError, match=message):
        stack_layers(model(), least)


def test_only_a_stacked_model_is_unstacked():
    with pytest.raises(ValueError, match="`model` must be a model of stack_layers"):
        unstack(sequential())


class Nameless(keras.layers.Layer):
    """One that Keras cannot make anew."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.size))

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        raise NotImplementedError("no configuration")


def test_layers_without_a_configuration_are_stacked_all_the_same():
    inputs = keras.Input((UNITS,))
    layers = [Nameless(UNITS) for _ in range(3)]
    model = keras.Model(inputs, chain(inputs, layers)[-1])
    stacked = stack_layers(model)
    assert_equal(stacked(drawn(4, UNITS)), model(drawn(4, UNITS)))
    with pytest.raises(ValueError, match="no configuration"):
        unstack(stacked)
