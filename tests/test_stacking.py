"""Models whose equal layers became loops do what they did before."""

import re

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from backends import HAS_XLA
from keras import ops

from keras_bsnn.export import to_keras
from keras_bsnn.export._reading import needs_package
from keras_bsnn.layers import DepthStack
from keras_bsnn.stacking import copy_state, stack_layers, unstack

UNITS, TIMES = 8, 3
HAS_PROGRAMS = keras.backend.backend() in ("tensorflow", "jax")
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


@keras.saving.register_keras_serializable("tests")
class Looped(keras.layers.Layer):
    """A layer that calls its layers in a loop; `noisy` also by other means."""

    def __init__(self, depth=4, flaw=None, **kwargs):
        super().__init__(**kwargs)
        self.depth, self.flaw = depth, flaw
        self.blocks = [dense(UNITS, "tanh") for _ in range(depth)]
        if flaw == "a weight":
            self.scale = self.add_weight(shape=(), name="scale")

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)
        if self.flaw == "another weight":
            self.extra = dense(UNITS)
            self.extra.build(input_shape)

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        if self.flaw == "training" and training:
            x = 2 * x
        if self.flaw == "a loss":
            self.add_loss(ops.sum(x))
        if self.flaw == "another weight":
            x = x @ self.extra.kernel
        return x

    def get_config(self):
        return {**super().get_config(), "depth": self.depth, "flaw": self.flaw}


def looped(flaw=None):
    inputs = keras.Input((UNITS,))
    return keras.Model(inputs, dense(2)(Looped(flaw=flaw, name="blocks")(inputs)))


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
    "looped": (looped, 1, "^blocks/dense.*: 4 equal parts became a loop"),
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
    said = [re.sub(r"\d+", "", found.report) for found in (loaded, stacked)]
    assert said[0] == said[1]
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


def test_what_is_frozen_is_frozen_in_files(tmp_path):
    """Also of layers that a layer makes itself, of which no configuration tells."""
    model = looped()
    model.layers[1].blocks[0].trainable = False
    stacked = stack_layers(model)
    assert [stack.depth for stack in stacks(stacked)] == [3]
    stacked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = drawn(4, UNITS)
    assert_equal(loaded(x), stacked(x), atol=0)
    frozen = [not block.trainable for block in unstack(loaded).layers[1].blocks]
    assert frozen == [True, False, False, False]


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


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A model with a `call` of its own, of two inputs."""

    def __init__(self, depth=4, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.blocks = [dense(UNITS, "tanh") for _ in range(depth)]

    def call(self, inputs):
        x, y = inputs["x"], inputs["y"]
        for block in self.blocks:
            x = block(x) + y
        return x

    def get_config(self):
        return {**super().get_config(), "depth": self.depth}


def test_a_model_that_calls_its_layers_in_a_loop(tmp_path):
    inputs = {name: keras.Input((UNITS,), name=name) for name in "xy"}
    model, data = Subclassed(), {name: drawn(4, UNITS) for name in "xy"}
    stacked = stack_layers(model, inputs=inputs)
    assert [stack.depth for stack in stacks(stacked)] == [4]
    assert_equal(stacked(data), model(data))
    stacked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded(data), stacked(data), atol=0)
    before = unstack(loaded)
    assert type(before) is Subclassed
    assert_equal(before(data), stacked(data))


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("a weight", "it has weights, or random numbers, of its own"),
        ("training", "its `call` does something else in training"),
        ("a loss", "its `call` takes no symbolic tensors (`add_loss"),
        ("another weight", "its `call` uses weights that are not of a layer it calls"),
    ],
)
def test_what_does_more_than_to_call_layers_is_kept(flaw, said):
    model = looped(flaw)
    stacked = stack_layers(model)
    assert not stacks(stacked)
    assert f"blocks is called as it is: {said}" in stacked.report
    x = drawn(4, UNITS)
    assert_equal(stacked(x, training=True), model(x, training=True))


@keras.saving.register_keras_serializable("tests")
class Placed(keras.layers.Layer):
    """One that knows its place, of which it makes use or not."""

    def __init__(self, place, uses, **kwargs):
        super().__init__(**kwargs)
        self.place, self.uses = place, uses
        self.dense = dense(UNITS, "gelu")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x) * (self.place if self.uses else 1)

    def get_config(self):
        own = {"place": self.place, "uses": self.uses}
        return {**super().get_config(), **own}


@pytest.mark.skipif(not HAS_PROGRAMS, reason="the backend does not say what it does")
@pytest.mark.parametrize("uses", [False, True])
def test_layers_are_equal_if_they_compute_the_same(uses):
    inputs = keras.Input((UNITS,))
    layers = [Placed(i, uses, name=f"placed_{i}") for i in range(3)]
    model = keras.Model(inputs, chain(inputs, layers)[-1])
    stacked = stack_layers(model)
    assert len(stacks(stacked)) == (not uses)
    assert_equal(stacked(drawn(4, UNITS)), model(drawn(4, UNITS)))
    if uses:
        said = (
            "placed_0 and placed_1 are not in one loop: they differ in `place`: 0 and 1"
        )
        assert said in stacked.report


def test_what_is_broadcast_before_the_first_layer_is_no_loop():
    inputs = keras.Input((1, UNITS))
    x, offset = inputs, keras.Input((TIMES, UNITS))
    for _ in range(4):
        x = dense(UNITS)(x + offset)
    stacked = stack_layers(keras.Model([inputs, offset], x))
    assert [stack.depth for stack in stacks(stacked)] == [3]


def test_two_chains_of_which_one_needs_the_other():
    """As an encoder and a decoder, whose calls Keras lists in turn."""
    first = keras.Input((UNITS,)), keras.Input((UNITS,))
    encoded, x = first
    for _ in range(3):
        encoded = dense(UNITS, "tanh")(encoded)
    for _ in range(4):
        x = Added()([x, encoded])
    model = keras.Model(first, [x, encoded])
    stacked = stack_layers(model)
    assert sorted(stack.depth for stack in stacks(stacked)) == [3, 4]
    data = data_of(model)
    assert_equal(stacked(data), model(data))


@keras.saving.register_keras_serializable("tests")
class Added(keras.layers.Layer):
    """Of a sequence and what every layer sees of another."""

    def build(self, input_shape):
        self.dense = dense(UNITS, "tanh")
        self.dense.build(input_shape[0])

    def call(self, inputs):
        return self.dense(inputs[0]) + inputs[1]


@pytest.mark.parametrize("make", [sequential, shared])
def test_checkpoints_are_for_all_loops(make, tmp_path):
    model, x, y = make(), drawn(4, UNITS), drawn(4, 2)
    stacked = stack_layers(make(), checkpoint_every="sqrt")
    copy_state(model, stacked)
    assert_equal(trained(stacked, x, y), trained(model, x, y))
    stacked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [stack.checkpoint_every for stack in stacks(loaded)] == ["sqrt"]


@pytest.mark.parametrize("make", [residual, looped])
def test_to_keras_has_no_loops(make):
    """Also none of this package, as far as the model had none before."""
    stacked = stack_layers(make())
    plain = to_keras(stacked)
    x = drawn(4, UNITS)
    assert_equal(plain(x), stacked(x))
    assert not needs_package(plain)


def test_weights_of_files_go_both_ways(tmp_path):
    model, other = residual(), residual()
    stacked = stack_layers(model)
    x = drawn(4, UNITS)
    other.save_weights(tmp_path / "plain.weights.h5")
    stacked.load_weights(tmp_path / "plain.weights.h5")
    assert_equal(stacked(x), other(x))
    stacked.save_weights(tmp_path / "stacked.weights.h5")
    assert not np.allclose(model(x), stacked(x))
    model.load_weights(tmp_path / "stacked.weights.h5")
    assert_equal(stacked(x), model(x))


@pytest.mark.parametrize("name", ["adam", "sgd", "lion"])
def test_training_goes_on_with_loops_and_without(name):
    """Both ways, and as if nothing had happened."""

    def compiled(model):
        kwargs = {"momentum": 0.9} if name == "sgd" else {}
        kind = keras.optimizers.get(name).__class__
        model.compile(kind(0.01, **kwargs), "mse", jit_compile=HAS_XLA)
        return model

    def steps(model):
        return [model.train_on_batch(x, y) for _ in range(2)]

    x, y = drawn(4, UNITS), drawn(4, 2)
    model = compiled(residual())
    steps(model)
    stacked = compiled(stack_layers(residual()))
    copy_state(model, stacked)
    expected, found = steps(model), steps(stacked)
    assert_equal(found, expected)
    before = compiled(unstack(stacked))
    copy_state(stacked, before)
    assert_equal(steps(before), steps(model))


def test_a_stack_stands_for_as_many_layers():
    layers = sequential().layers[:5]
    stack = DepthStack.from_layers(layers)
    kernel, kernels = stack.variables_with(layers)[0]
    assert_equal(array(kernel), np.stack([*map(array, kernels)]), atol=0)
    with pytest.raises(ValueError, match=r"`layers` must be as many .* depth=5"):
        stack.variables_with(layers[1:])


def test_bad_copies():
    model = residual()
    stacked = stack_layers(model)
    with pytest.raises(ValueError, match="one of `source` and `target` must be"):
        copy_state(model, model)
    with pytest.raises(ValueError, match=r"`source` and `target`.* calls Dense where"):
        copy_state(sequential(), stacked)
    stacked.compile("adam")
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="optimizers of `source` and `target` must"):
        copy_state(model, stacked)
    model.compile("adafactor")
    model.optimizer.build(model.trainable_variables)
    stacked.compile("adafactor")
    with pytest.raises(ValueError, match="of the shape of a weight, to be copied"):
        copy_state(model, stacked)


class Empty(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "least", "message"),
    [
        (Empty, 2, "`inputs` must be given for a model .*'empty.*Empty"),
        (keras.Sequential, 2, "`model` must be a Keras model; a Sequential must be b"),
        (lambda: dense(3), 2, "`model` must be a Keras model"),
        (sequential, 1, "`least`"),
        (sequential, 2.5, "`least`"),
    ],
)
def test_bad_arguments(model, least, message):
    with pytest.raises(ValueError, match=message):
        stack_layers(model(), least)


@keras.saving.register_keras_serializable(package="test_stacking")
class Speaks(keras.Sequential):
    """A model with a method of its own."""

    def generate(self):
        return "words"


def test_methods_of_the_model_are_with_the_model_without_loops():
    stacked = stack_layers(Speaks([keras.Input((UNITS,)), dense(UNITS), dense(UNITS)]))
    with pytest.raises(
        AttributeError, match=r"'generate'.*Speaks\. .*unstack\(model\)"
    ):
        stacked.generate()
    assert unstack(stacked).generate() == "words"
    with pytest.raises(AttributeError, match="no attribute 'speak'"):
        stacked.speak()


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
