import keras
import numpy as np
import pytest
from arrays import assert_array_equal
from backends import HAS_FLOAT64

from keras_bsnn import activations
from keras_bsnn.activations import DepthShaped, Gained, GaussianPoincare
from keras_bsnn.ops import gaussian

X = np.linspace(-3, 3, 13).astype("float32")

MADE = {
    "plain": lambda: GaussianPoincare("tanh"),
    "the other root": lambda: GaussianPoincare("gelu", root="plus"),
    "shaped": lambda: DepthShaped("relu", depth=100, eta=0.4),
    "gained": lambda: Gained(
        "sin" if hasattr(keras.activations, "sin") else "elu", 0.3
    ),
    "nested": lambda: Gained(GaussianPoincare("silu"), 2),
    "of a layer": lambda: GaussianPoincare(keras.layers.LeakyReLU(negative_slope=0.1)),
}


def test_the_attributes_are_the_constants():
    a, b = gaussian.gp_constants("gelu", "minus")
    gelu = GaussianPoincare("gelu")
    assert (gelu.scale, gelu.shift) == (a, b)
    assert abs(gelu.length_slope - 0.4972) < 1e-4
    np.testing.assert_allclose(gelu(X), a * keras.activations.gelu(X) + b, atol=1e-6)


def test_depth_shaped_is_normalized_and_has_an_epsilon():
    shaped = DepthShaped("relu", depth=200, eta=0.56)
    assert abs(shaped.epsilon - 0.2) < 0.005
    m = gaussian.moments(shaped)
    tolerance = 1e-9 if HAS_FLOAT64 else 1e-5
    assert abs(m.second_moment - 1) < tolerance
    assert abs(m.derivative_second_moment - 1) < tolerance
    raw = X + shaped.epsilon * np.maximum(X, 0)
    np.testing.assert_allclose(shaped(X), shaped.scale * raw + shaped.shift, atol=1e-6)


def test_the_default_of_eta_is_a_half():
    assert DepthShaped("relu", 50).epsilon == DepthShaped("relu", 50, 0.5).epsilon


def test_normalizing_twice_changes_nothing():
    once = DepthShaped("gelu", depth=100)
    twice = GaussianPoincare(once)
    np.testing.assert_allclose(twice(X), once(X), atol=1e-5)


def test_gained():
    np.testing.assert_allclose(Gained("tanh", 0.5)(X), np.tanh(X / 2), atol=1e-6)


def test_names():
    assert isinstance(activations.get("gp_tanh"), GaussianPoincare)
    assert activations.get("tanh") is keras.activations.tanh
    np.testing.assert_array_equal(activations.get(None)(X), X)
    layer = GaussianPoincare("relu")
    assert activations.get(layer) is layer


@pytest.mark.parametrize("name", ["nope", "gp_nope", "gp_", 3])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"nope|activation"):
        activations.get(name)


@pytest.mark.parametrize("name", MADE)
def test_config_round_trip_solves_nothing_again(name, monkeypatch):
    made = MADE[name]()
    y = made(X)
    config = keras.saving.serialize_keras_object(made)

    def refuse(*args):
        raise AssertionError("a constant was computed again")

    for function in ("gp_constants", "length_slope", "shaping_epsilon", "moments"):
        monkeypatch.setattr(gaussian, function, refuse)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == made.get_config()
    np.testing.assert_array_equal(again(X), y)


@pytest.mark.parametrize("name", MADE)
def test_in_a_layer_of_keras_saved_and_reloaded(name, tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(3, activation=MADE[name]()),
            MADE[name](),
        ]
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_array_equal(model(x), again(x))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_of_the_input_is_kept(dtype):
    for make in MADE.values():
        y = make()(keras.ops.cast(X, dtype))
        assert keras.backend.standardize_dtype(y.dtype) == dtype


def test_gradient_and_value_have_unit_mean_square_on_gaussian_samples():
    z = np.random.default_rng(0).normal(size=1_000_000).astype("float32")
    phi = GaussianPoincare("gelu")
    y = keras.ops.convert_to_numpy(phi(z))
    slope = (keras.ops.convert_to_numpy(phi(z + 1e-2)) - y) / 1e-2
    assert abs(np.mean(y**2) - 1) < 0.01
    assert abs(np.mean(slope**2) - 1) < 0.01


@pytest.mark.parametrize("gain", ["1", None, float("nan"), float("inf")])
def test_bad_gain(gain):
    with pytest.raises(ValueError, match="`gain`"):
        Gained("tanh", gain)


def test_bad_arguments_reach_the_user():
    with pytest.raises(ValueError, match="`root`"):
        GaussianPoincare("tanh", root="left")
    with pytest.raises(ValueError, match="`eta`"):
        DepthShaped("tanh", depth=10, eta=1.0)
    with pytest.raises(ValueError, match="out of reach for 'tanh' at depth 1"):
        DepthShaped("tanh", depth=1)
    with pytest.raises(ValueError, match="`depth`"):
        DepthShaped("tanh", depth=0)
    with pytest.raises(ValueError, match="constant"):
        GaussianPoincare(lambda x: 0 * x)
