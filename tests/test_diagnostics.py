import warnings

import keras
import numpy as np
import pytest

from keras_bsnn import diagnostics, plots
from keras_bsnn.models import batchnorm_mlp


def linear_model():
    """Two matrices, whose signals and gradients are known in closed form."""
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, use_bias=False, name="first"),
            keras.layers.ReLU(),
            keras.layers.Dense(2, use_bias=False, name="second"),
        ]
    )
    model.compile(loss="mse")
    return model


def test_norms_of_a_model_known_in_closed_form():
    model, rng = linear_model(), np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 2))
    a, b = (w.astype("float64") for w in model.get_weights())
    h = x.reshape(5, 6) @ a
    top = 2 * (np.maximum(h, 0) @ b - y) / y.size
    bottom = (top @ b.T) * (h > 0)
    found = diagnostics.signal_norms(model, x.astype("float32"), y.astype("float32"))
    assert found.layers == ["first", "second"]
    np.testing.assert_allclose(
        found.forward,
        [np.sqrt(np.mean(h**2)), np.sqrt(np.mean((np.maximum(h, 0) @ b) ** 2))],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        found.gradient, [np.linalg.norm(bottom), np.linalg.norm(top)], rtol=1e-5
    )


def test_measuring_changes_nothing():
    model = linear_model()
    before = model.get_weights()
    diagnostics.signal_norms(model, np.ones((2, 3, 2), "float32"), np.ones((2, 2)))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_models_that_cannot_be_measured():
    x = np.ones((2, 3), "float32")
    with pytest.raises(ValueError, match=r"keras\.Sequential, compiled"):
        diagnostics.signal_norms(keras.Sequential([keras.layers.Dense(2)]), x, x)
    with pytest.raises(ValueError, match=r"keras\.Sequential"):
        diagnostics.signal_norms(keras.layers.Dense(2), x, x)


def test_figure(tmp_path):
    from matplotlib import image

    falling = diagnostics.SignalNorms(
        [], np.ones(10), np.array([0.0, 0, *10.0 ** np.arange(-40, 0, 5)])
    )
    plots.signals({"steady": falling, "other": falling}, tmp_path / "signals.png")
    picture = image.imread(tmp_path / "signals.png")
    assert picture.shape[0] > 500 and np.ptp(picture) > 0.9


def batchnorm(shrinkage=0.0):
    return batchnorm_mlp(5, 12, None, shrinkage=shrinkage, input_shape=(20,))


def test_a_batch_that_is_too_small_or_repeats_is_told():
    x = np.random.default_rng(0).normal(size=(40, 20)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert diagnostics.check_batch(batchnorm(), x) == 20
        assert diagnostics.check_batch(batchnorm(shrinkage=0.9), x[:5]) is None
        batchnorm()(x, training=True)
        batchnorm(shrinkage=0.9)(x[:5], training=True)
    x[8:] = x[0]
    with pytest.warns(UserWarning, match="8 of the 40 samples .* width of 12 units"):
        assert diagnostics.check_batch(batchnorm(), x) == 8
    with pytest.warns(UserWarning, match="batch of 11 samples .* width of 12 units"):
        batchnorm()(x[:11], training=True)
    with pytest.raises(ValueError, match="`model` must be a built"):
        diagnostics.check_batch(keras.Sequential([keras.layers.Dense(2)]), x)
