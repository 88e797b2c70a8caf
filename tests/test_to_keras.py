"""Models of Keras' own layers equal those that they are made of."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from arrays import assert_allclose

from keras_bsnn import activations, models
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.export import to_keras
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import (
    ROAF,
    BatchNormDense,
    DepthStack,
    OrthogonalDense,
    ROAFDense,
)
from keras_bsnn.optimizers import StiefelMuon
from keras_bsnn.recalibration import recalibrate

JIT = keras.backend.backend() == "jax"  # which is slow without
SHAPE = (4, 4, 1)
X = np.random.default_rng(0).normal(size=(1000, *SHAPE)).astype("float32")
FAMILIES = {
    "bsnn": lambda: models.bsnn_mlp(10, 12, input_shape=SHAPE),
    "bsnn relu": lambda: models.bsnn_mlp(10, 12, "relu", input_shape=SHAPE),
    "bsnn leaky": lambda: models.bsnn_mlp(10, 12, "leaky_relu", input_shape=SHAPE),
    "bsnn gp": lambda: models.bsnn_mlp(10, 12, "gp_tanh", input_shape=SHAPE),
    "linear": lambda: models.batchnorm_mlp(100, 12, None, input_shape=SHAPE),
    "batchnorm": lambda: models.batchnorm_mlp(10, 12, input_shape=SHAPE),
    "sine": lambda: models.batchnorm_mlp(10, 12, "sin", input_shape=SHAPE),
    "roaf": lambda: models.roaf_mlp(10, 12, input_shape=SHAPE),
    "roaf shift": lambda: models.roaf_mlp(10, 12, filter="shift", input_shape=SHAPE),
    "roaf shared": lambda: models.roaf_mlp(
        10, 12, shared_filter=True, input_shape=SHAPE
    ),
}


def moved(model):
    """With no weight at its start, and statistics that fit the weights."""
    rng = np.random.default_rng(0)
    weights = [w + 0.03 * rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    recalibrate(model, X.reshape(len(X), *model.input_shape[1:]))
    return model


def assert_equal(plain, model, x, atol=1e-4):
    found, expected = (keras.ops.convert_to_numpy(m(x)) for m in (plain, model))
    assert np.std(expected) > 1e-3
    np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, tmp_path):
    model = moved(FAMILIES[family]())
    plain = to_keras(model)
    assert "keras_bsnn" not in plain.to_json()
    assert_equal(plain, model, X)
    plain.save(tmp_path / "plain.keras")
    reloaded = keras.models.load_model(tmp_path / "plain.keras")
    assert_equal(reloaded, model, X)


@pytest.mark.slow
def test_they_load_where_this_package_is_not_installed(tmp_path):
    made = {
        "sequential": moved(models.batchnorm_mlp(5, 12, "sin", input_shape=(16,))),
        "functional": a_compiled_model(),
    }
    np.save(tmp_path / "x.npy", x := X.reshape(-1, 16)[:10])
    for name, model in made.items():
        to_keras(model).save(tmp_path / f"{name}.keras")
    code = """if True:
        import sys
        sys.modules["keras_bsnn"] = None  # an import of it fails
        import keras, numpy as np
        for path in sys.argv[1:]:
            y = keras.models.load_model(path)(np.load("x.npy"))
            np.save(path + ".npy", keras.ops.convert_to_numpy(y))
    """
    paths = [f"{name}.keras" for name in made]
    subprocess.run([sys.executable, "-c", code, *paths], cwd=tmp_path, check=True)
    for path, model in zip(paths, made.values(), strict=True):
        found = np.load(tmp_path / f"{path}.npy")
        assert_allclose(found, model(x), atol=1e-5)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


def test_constants_go_into_kernels():
    model = models.bsnn_mlp(3, 8, "gp_tanh", input_shape=(4,))
    start = ["Flatten", "Dense", "UnitNormalization", "Rescaling", "Activation"]
    assert kinds(to_keras(model)) == [*start, *["Dense"] * 4]


def test_a_shaped_relu_is_a_leaky_one():
    model = models.bsnn_mlp(2, 8, "relu", input_shape=(4,))
    hidden = ["Dense", "LeakyReLU"]
    assert kinds(to_keras(model))[-6:] == ["LeakyReLU", *hidden, *hidden, "Dense"]


@pytest.mark.slow
def test_rounding_does_not_add_up():
    """Constants are those that each layer computes with, rounded as they are."""
    model = models.bsnn_mlp(200, 8, "gelu", input_shape=(16,), seed=0)
    assert_equal(to_keras(model), model, X.reshape(-1, 16)[:100], atol=1.5e-5)


@pytest.mark.slow
def test_deeper_than_a_graph_of_keras():
    """Which it goes through by recursion, when it is made and when it is loaded."""
    model = models.bsnn_mlp(300, 8, "gelu", input_shape=(16,), seed=0)
    assert_equal(to_keras(model), model, X.reshape(-1, 16)[:100])


def test_a_bottleneck_stays():
    layers = [keras.layers.Dense(n) for n in (2, 50)]
    plain = to_keras(keras.Sequential([keras.Input((40,)), *layers]))
    assert kinds(plain) == ["Dense", "Dense"]


def test_a_stack_that_is_too_deep_to_be_taken_apart():
    stack = DepthStack(OrthogonalDense(6, "gp_tanh"), 20)
    model = keras.Sequential([keras.Input((6,)), stack, keras.layers.Dense(2)])
    with pytest.warns(UserWarning, match=r"stack of more than 10 layers.*needs keras_"):
        plain = to_keras(model, largest_depth=10)
    assert kinds(plain) == ["DepthStack", "Dense"]
    x = X.reshape(-1, 16)[:, :6]
    assert_equal(plain, model, x)
    plain.layers[1].trainable_variables[0].assign(np.zeros((20, 6, 6)))
    assert not np.allclose(plain.predict(x, verbose=0), model.predict(x, verbose=0))


def test_functional_models():
    inputs = keras.Input((6,))
    shared = OrthogonalDense(6, "gp_tanh")
    a, b = shared(inputs), shared(keras.layers.ReLU()(inputs))
    c = DepthStack(ROAFDense(6, 0.9), 5)(keras.layers.add([a, b]))
    model = keras.Model(inputs, keras.layers.Dense(10)(c))
    plain = to_keras(trained_on_six(model))
    assert "keras_bsnn" not in plain.to_json()
    assert_equal(plain, model, X.reshape(-1, 16)[:, :6])


def trained_on_six(model):
    x = X.reshape(-1, 16)[:, :6]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=JIT)
    model.fit(x, np.arange(len(x)) % 10, verbose=0)
    return model


@pytest.mark.parametrize("function", ["gelu", keras.activations.relu, "softsign"])
def test_activations_of_any_kind(function):
    shaped = activations.DepthShaped(function, 10)
    for activation in (shaped, activations.Gained(shaped, 0.5), "softmax"):
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(5, activation),
                keras.layers.Activation(activation),
                activations.Gained("tanh", 2.0),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                BatchNormDense(4, activation, affine=True),
            ]
        )
        assert_equal(to_keras(model), model, X.reshape(-1, 16)[:, :6])


@pytest.mark.parametrize("filter", ["haar", "shift", "rotations"])
@pytest.mark.parametrize("kwargs", [{}, {"return_sequences": True}])
def test_recurrent_layers(filter, kwargs):
    layer = ROAF(7, 0.9, activation="relu", filter=filter, **kwargs)
    backwards = ROAF(3, 0.8, beta=0.5, activation="relu", go_backwards=True)
    last = [backwards] if kwargs else [keras.layers.Dense(3)]
    masking = keras.layers.Masking()
    model = keras.Sequential([keras.Input((None, 2)), masking, layer, *last])
    plain = to_keras(model)
    assert "keras_bsnn" not in plain.to_json()
    x = X.reshape(-1, 8, 2).copy()
    x[::2, 5:] = 0  # masked
    assert_equal(plain, model, x)


def test_half_precision():
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    dense = OrthogonalDense(6, "gp_tanh", dtype=policy)
    model = keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(2)])
    plain = to_keras(model)
    assert {layer.compute_dtype for layer in plain.layers[1:]} == {"float32"}
    assert_equal(plain, model, X.reshape(-1, 16)[:, :6], atol=0.05)


@keras.saving.register_keras_serializable(package="test")
class Doubled(keras.layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_classes_of_others_are_kept():
    layers = [Doubled(4), Doubled(3, "tanh")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    plain = to_keras(model)
    assert kinds(plain) == ["Doubled", "Doubled"]
    assert_equal(plain, model, X.reshape(-1, 16)[:, :6])


def test_models_within_models():
    inputs = keras.Input((6,))
    inner = keras.Model(inputs, keras.layers.Dense(6, "tanh")(inputs))
    layers = [inner, DepthStack(inner, 3), OrthogonalDense(6, "gp_tanh")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    plain = to_keras(model)
    assert kinds(plain)[:4] == ["Functional"] * 4
    assert_equal(plain, model, X.reshape(-1, 16)[:, :6])


def test_quantized_layers_are_kept():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.quantize("int8")
    assert_equal(to_keras(model), model, X.reshape(-1, 16)[:, :6])


WITH_OURS = {
    "Dense": (lambda **ours: keras.layers.Dense(4, **ours), (4,)),
    "Conv2D": (lambda **ours: keras.layers.Conv2D(4, 2, **ours), (3, 3, 2)),
    "EinsumDense": (
        lambda **ours: keras.layers.EinsumDense("abc,cd->abd", (3, 4), **ours),
        (3, 4),
    ),
    "SimpleRNN": (
        lambda kernel_constraint, kernel_initializer: keras.layers.SimpleRNN(
            4,
            recurrent_constraint=kernel_constraint,
            recurrent_initializer=kernel_initializer,
        ),
        (3, 2),
    ),
    "MultiHeadAttention": (
        lambda **ours: keras.layers.MultiHeadAttention(2, 3, **ours),
        (3, 4),
    ),
    "TimeDistributed": (
        lambda **ours: keras.layers.TimeDistributed(keras.layers.Dense(4, **ours)),
        (3, 4),
    ),
    "Functional": (lambda **ours: compiled(keras.layers.Dense(4, **ours)), (4,)),
}


def compiled(layer):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(inputs))
    model.compile(StiefelMuon(), "mse")
    return model


@pytest.mark.parametrize("kind", WITH_OURS)
@pytest.mark.parametrize("is_sequential", [True, False])
def test_layers_of_keras_lose_our_constraints_and_initializers(kind, is_sequential):
    make, shape = WITH_OURS[kind]
    layer = make(kernel_constraint=Orthogonal(), kernel_initializer=HaarOrthogonal())
    inputs = keras.Input(shape)
    many = [inputs] * (2 if kind == "MultiHeadAttention" else 1)
    model = keras.Model(inputs, layer(*many))
    if is_sequential and len(many) == 1:
        model = keras.Sequential([keras.Input(shape), layer])
    plain = to_keras(model)
    assert kinds(plain) == [kind]
    assert "keras_bsnn" not in plain.to_json()
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype("float32")
    assert_equal(plain, model, x, atol=1e-6)


@pytest.mark.parametrize("make", [keras.layers.Conv1D, keras.layers.Conv1DTranspose])
def test_our_activation_follows_a_layer_of_keras(make):
    activation = activations.GaussianPoincare("tanh")
    layer = make(3, 2, activation=activation, kernel_constraint=Orthogonal())
    model = keras.Sequential([keras.Input((5, 2)), layer, keras.layers.Dense(3)])
    plain = to_keras(model)
    assert kinds(plain) == [make.__name__, "Activation", "Dense"]
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype("float32")
    assert_equal(plain, model, x, atol=1e-6)


def a_compiled_model():
    inputs = keras.Input((16,))
    outputs = DepthStack(OrthogonalDense(16, "gp_tanh"), 3)(inputs)
    model = keras.Model(inputs, outputs, name="mine")
    model.compile(StiefelMuon(), "mse")
    return model


def test_a_compiled_model_is_not_compiled():
    plain = to_keras(model := a_compiled_model())
    assert not plain.compiled and plain.name == "mine" and model.compiled


def test_a_replaced_layer_takes_one_tensor():
    first, second = keras.Input((5, 2)), keras.Input((5,), dtype="bool")
    layer = ROAF(3, 0.9, activation="relu", name="memory")
    model = keras.Model([first, second], layer(first, mask=second))
    with pytest.raises(ValueError, match="must call 'memory' with one tensor"):
        to_keras(model)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = OrthogonalDense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_what_keras_has_no_equal_of():
    recurrent = keras.Sequential([keras.Input((5, 2)), ROAF(3, 0.9, name="memory")])
    with pytest.raises(ValueError, match="'memory', a ROAF, has none"):
        to_keras(recurrent)
    with pytest.raises(ValueError, match=r"must be a built keras\.Model"):
        to_keras(keras.Sequential([OrthogonalDense(3)]))
    for bad in (OrthogonalDense(3), Subclassed()):
        bad(X.reshape(-1, 16))
        with pytest.raises(ValueError, match=r"built keras\.Model, sequential or func"):
            to_keras(bad)
