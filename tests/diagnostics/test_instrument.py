"""Copies of models on the same variables, which leave the models as they are."""

import threading

import keras
import numpy as np
import pytest
from arrays import assert_allclose, assert_array_equal

from keras_bsnn import _model, diagnostics
from keras_bsnn._parts import nested
from keras_bsnn.diagnostics._instrument import instrumented
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense
from keras_bsnn.recalibration import recalibrate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.normal(size=(16, 6)).astype("float32")


def sequential():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(6, "relu"),
            DepthStack(OrthogonalDense(6, "gp_tanh"), 3),
            keras.Sequential([keras.layers.BatchNormalization(), keras.layers.ReLU()]),
        ]
    )


def functional():
    x = inputs = {"a": keras.Input((6,), name="a")}
    shared = keras.layers.Dense(6, "tanh")
    inner = keras.Sequential([keras.layers.Dense(6)])
    x = shared(keras.ops.sin(x["a"]))
    return keras.Model(inputs, keras.layers.Add()([shared(x), inner(x)]))


class Subclassed(keras.Model):
    """Has layers in a list, a dict and a model, and one layer that knows another."""

    def __init__(self):
        super().__init__()
        self.listed = [keras.layers.Dense(6, name=f"listed_{i}") for i in range(2)]
        self.named = {"key": keras.layers.Dense(6, "tanh", name="named")}
        self.inner = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
        self.again = self.listed[0]

    def call(self, x):
        for layer in (*self.listed, *self.named.values(), self.inner, self.again):
            x = layer(x)
        return x


class OwnCall(keras.Model):
    """A functional model with a `call` of its own."""

    def __init__(self):
        inputs = keras.Input((6,))
        super().__init__(inputs, keras.layers.Dense(6)(inputs))

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class Residual(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def build(self, input_shape):
        self.norm.build(input_shape)

    def call(self, x):
        return x + self.norm(x)


MODELS = {
    "sequential": (sequential, X),
    "functional": (functional, {"a": X}),
    "subclassed": (Subclassed, X),
    "functional with its own call": (OwnCall, X),
}


def state(model):
    """All attributes of all layers, of containers also their items."""
    return {
        (id(layer), name): list(value) if isinstance(value, (list, dict)) else value
        for layer in nested(model)
        for name, value in vars(layer).items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_calls_the_observed_layers_and_the_model_stays(name):
    make, x = MODELS[name]
    model = make()
    expected = keras.ops.convert_to_numpy(model(x))
    before, calls = state(model), []

    def wrap(layer, copy):
        call = copy.call

        def observed(*args, **kwargs):
            calls.append(layer)
            return call(*args, **kwargs)

        return observed

    layers = list(_model.leaves(model))
    twin = instrumented(model, layers, wrap)
    calls.clear()
    assert_allclose(twin(x), expected, atol=1e-6)
    assert {id(layer) for layer in calls} == {id(layer) for layer in layers}
    assert [id(v) for v in twin.variables] == [id(v) for v in model.variables]
    calls.clear()
    assert_array_equal(model(x), expected)
    assert calls == []
    after = state(model)
    assert before.keys() == after.keys()
    assert all(before[key] is after[key] or before[key] == after[key] for key in after)


def test_a_subclassed_model_with_layers_in_a_list_and_a_dict():
    model = Subclassed()
    model.compile("sgd", "mse")
    model(X)
    found = diagnostics.signal_report(model, X, Y)
    assert found.layers[:3] == ["listed_0", "listed_1", "named"]
    assert found.layers[-1] == "listed_0 (2)" and len(found.layers) == 5
    assert np.all(found.gradient > 0) and np.all(found.weight_gradient > 0)


class Meeting(keras.layers.Layer):
    """While another thread measures it, waits until this one has called the model."""

    def __init__(self):
        super().__init__()
        self.inside, self.called = threading.Event(), threading.Event()
        self.thread = None

    def call(self, x):
        if threading.get_ident() == self.thread:
            self.inside.set()
            assert self.called.wait(60)
        return x + 0.0


@pytest.mark.parametrize("measure", ["signal_report", "recalibrate"])
def test_another_thread_sees_nothing(measure):
    meeting = Meeting()
    inputs = keras.Input((6,))
    x = BatchNormDense(6, "tanh")(meeting(inputs))
    model = keras.Model(inputs, DepthStack(keras.layers.Dense(6, "relu"), 3)(x))
    model.compile("sgd", "mse")
    expected, before = model(X), state(model)
    failures = []

    def work():
        meeting.thread = threading.get_ident()
        try:
            if measure == "recalibrate":
                recalibrate(model, X)
            else:
                diagnostics.signal_report(model, X, Y)
        except BaseException as error:
            failures.append(error)
        finally:
            meeting.inside.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert meeting.inside.wait(60)
    found = model(X)
    during = state(model)
    meeting.called.set()
    thread.join()
    assert not failures
    assert_array_equal(found, expected)
    for layer in nested(model):
        for name in ("call", "activation"):
            assert during.get((id(layer), name)) is before.get((id(layer), name))


def test_a_failing_call_leaves_the_model_as_it_was():
    class Failing(keras.layers.Layer):
        fails = False

        def call(self, x):
            if self.fails:
                raise RuntimeError("as asked")
            return x

    failing = Failing()
    layers = [keras.layers.Dense(6, "tanh"), failing]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", "mse")
    expected = model(X)
    failing.fails = True
    before = state(model)
    with pytest.raises(RuntimeError, match="as asked"):
        diagnostics.signal_report(model, X, Y)
    assert all(
        value is before[key] or value == before[key]
        for key, value in state(model).items()
    )
    failing.fails = False
    assert_array_equal(model(X), expected)


def test_recalibration_reaches_a_layer_within_a_layer():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, Residual()(keras.layers.Dense(6)(inputs)))
    expected = keras.ops.convert_to_numpy(model(X, training=True))
    recalibrate(model, X)
    assert_allclose(model(X), expected, atol=2e-5)
