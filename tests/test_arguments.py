"""Numbers of NumPy are numbers, and what is kept of them can be written as JSON."""

import json

import keras
import numpy as np
import pytest

from keras_bsnn import activations, callbacks, datasets, models
from keras_bsnn.ops import _check, gaussian, isometry, roaf


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint32])
def test_an_integer_of_numpy_is_an_integer(kind):
    for found in (_check.integer("n", kind(3)), _check.seed("n", kind(3))):
        assert found == 3 and type(found) is int


@pytest.mark.parametrize(
    ("value", "kind"),
    [(np.float32(0.5), float), (np.float64(0.5), float), (np.int64(2), int), (2, int)],
)
def test_a_number_of_numpy_is_a_number(value, kind):
    found = _check.number("x", value)
    assert found == value and type(found) is kind


def test_a_boolean_of_numpy_is_a_boolean():
    assert _check.boolean("x", np.True_) is True
    assert _check.boolean("x", np.False_) is False


@pytest.mark.parametrize(
    "value", [True, np.True_, 1.0, np.float64(1), "1", None, np.array([1]), [1]]
)
def test_what_is_no_integer(value):
    with pytest.raises(ValueError, match="`n` must be an integer >= 1"):
        _check.integer("n", value)


@pytest.mark.parametrize(
    "value", [True, np.True_, np.float32("inf"), np.float64("nan"), "1", None, 1j]
)
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match="`x` must be a finite number"):
        _check.number("x", value)


@pytest.mark.parametrize("value", [-1, np.int64(-1), 2**32, True, 0.5])
def test_what_is_no_seed(value):
    with pytest.raises(ValueError, match="`seed` must be an integer in"):
        _check.seed("seed", value)


def test_configurations_hold_plain_numbers():
    made = [
        activations.DepthShaped("tanh", np.int64(20), eta=np.float32(0.5)),
        activations.GaussianPoincare("tanh", "plus", np.float32(2), np.int32(0)),
        activations.Gained("tanh", np.float32(0.5)),
    ]
    for activation in made:
        config = activation.get_config()
        del config["dtype"]
        assert json.loads(json.dumps(config)) == config


@pytest.mark.slow
def test_models_of_numpy_integers():
    for make in (models.bsnn_mlp, models.batchnorm_mlp, models.roaf_mlp):
        found = []
        for kind in (int, np.int64):
            keras.utils.clear_session()  # layers get the same names
            model = make(kind(3), 8, seed=kind(1), input_shape=(4,))
            found.append(model.to_json())
        assert found[0] == found[1]


@pytest.mark.slow
def test_data_sets_of_numpy_integers():
    five, seed = np.int64(5), np.int64(7)
    for make in (
        lambda n, seed: datasets.load("digits", "train", n, seed=seed, start=n),
        lambda n, seed: datasets.permuted_mnist("test", n, seed, "digits"),
        lambda n, seed: datasets.adding_problem(n, n, seed),
        lambda n, seed: datasets.copy_memory(n, n, seed),
    ):
        expected, found = (next(iter(make(*a))) for a in ((5, 7), (five, seed)))
        for these, those in zip(expected, found, strict=True):
            np.testing.assert_array_equal(these, those)


def test_functions_of_numpy_integers(tmp_path):
    depth = np.int64(10)
    assert roaf.alpha_for_depth(depth) == 0.9
    assert gaussian.shaping_epsilon("tanh", depth, 0.5) > 0
    backup = callbacks.BackupAndRestore(tmp_path, np.int64(2), np.False_)
    assert backup.save_freq == 2 and backup.delete_checkpoint is False
    found = isometry.jacobian_singular_values(
        lambda x: 2 * x, np.ones((1, 4)), depth // 5
    )
    np.testing.assert_allclose(found, [[2, 2]], rtol=1e-5)
