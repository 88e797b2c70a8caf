import keras
import numpy as np
import pytest
from arrays import array, assert_allclose
from layer_checker import check_layer

from keras_bsnn import export
from keras_bsnn.layers import PerLocationNormalization


@pytest.mark.parametrize(
    ("arguments", "output_shape"),
    [({}, (5, 4, 4)), ({"append_one": False}, (5, 4, 3))],
)
def test_it_is_a_layer(arguments, output_shape, tmp_path):
    check_layer(PerLocationNormalization, arguments, (5, 4, 3), output_shape, tmp_path)


def test_each_place_has_mean_square_one():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    for append_one in (False, True):
        y = array(PerLocationNormalization(append_one)(x))
        np.testing.assert_allclose((y**2).mean(-1), 1, atol=1e-5)
        ratio = y[..., :5] / x
        np.testing.assert_allclose(ratio, ratio[..., :1] * np.ones(5), rtol=1e-4)
    first = PerLocationNormalization(data_format="channels_first")
    y = array(first(np.moveaxis(x, -1, 1)))
    expected = PerLocationNormalization()(x)
    assert_allclose(np.moveaxis(y, 1, -1), expected, atol=1e-6)


def test_blank_places():
    blank = np.zeros((1, 2, 2, 3), "float32")
    assert not array(PerLocationNormalization(append_one=False)(blank)).any()
    y = array(PerLocationNormalization()(blank))
    np.testing.assert_allclose(y, np.broadcast_to([0, 0, 0, 2], (1, 2, 2, 4)))


@pytest.mark.parametrize("append_one", [True, False])
def test_to_keras(append_one):
    layers = [keras.Input((4, 4, 3)), PerLocationNormalization(append_one)]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    plain = export.to_keras(model)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    assert_allclose(plain(x), model(x), atol=1e-5)
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`append_one`"):
        PerLocationNormalization("no")
    with pytest.raises(ValueError, match="`data_format`"):
        PerLocationNormalization(data_format="last")
    with pytest.raises(ValueError, match="`inputs` must be of floating point"):
        PerLocationNormalization()(np.ones((1, 2, 2, 3), "uint8"))
