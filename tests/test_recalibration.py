"""Statistics for evaluation: exact, consistent, for any model."""

import keras
import numpy as np
import pytest
from arrays import array

from keras_bsnn.layers import BatchNormDense, DepthStack
from keras_bsnn.recalibration import recalibrate


def data(samples=600, features=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, features)) @ rng.normal(size=(features, features))
    return (x + rng.normal(size=features)).astype("float32")


def block():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, kernel_initializer="orthogonal"),
            keras.layers.BatchNormalization(epsilon=1e-5),
            keras.layers.Activation("tanh"),
        ]
    )


def sequential():
    return keras.Sequential([keras.Input((8,)), block(), block()])


def functional():
    inputs = keras.Input((8,))
    x = keras.layers.BatchNormalization(name="second")(inputs)
    first = keras.layers.BatchNormalization(name="third")
    y = first(keras.layers.Dense(8)(x))
    return keras.Model(inputs, y + DepthStack(BatchNormDense(8), 3)(y))


MODELS = {
    "ours": lambda: keras.Sequential([keras.Input((8,)), BatchNormDense(8)]),
    "without mean": lambda: keras.Sequential(
        [keras.Input((8,)), BatchNormDense(8, center=False), BatchNormDense(8)]
    ),
    "norm": lambda: keras.Sequential(
        [keras.Input((8,)), DepthStack(BatchNormDense(8, scale_by="norm"), 2)]
    ),
    "stack": lambda: keras.Sequential(
        [keras.Input((8,)), DepthStack(BatchNormDense(8, "tanh"), 20)]
    ),
    "sequential": sequential,
    "stack of models": lambda: keras.Sequential(
        [keras.Input((8,)), DepthStack(block(), 5), keras.layers.Dense(2)]
    ),
    "functional": functional,
}


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_is_training_on_all_of_the_data(name):
    """In which every statistic is that of the whole data set."""
    x, model = data(), MODELS[name]()
    expected = array(model(x, training=True))
    recalibrate(model, x)
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stack", "functional"])
def test_batches_do_not_matter(name, tmp_path):
    import tensorflow as tf

    x, model = data(60), MODELS[name]()
    found = []
    for size in (60, 20, 7):
        batches = tf.data.Dataset.from_tensor_slices((x, x)).batch(size)
        recalibrate(model, batches, folder=tmp_path)
        found.append(model.get_weights())
        assert list(tmp_path.iterdir()) == []
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_what_is_frozen_is_kept():
    x, model = data(), MODELS["sequential"]()
    before = model.get_weights()
    model.trainable = False
    recalibrate(model, x)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_error_half_way_changes_nothing():
    x, model = data(), MODELS["sequential"]()
    before = model.get_weights()
    with pytest.raises(ValueError):
        recalibrate(model, [x, x[:, :5]])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ([], "`dataset` must have at least one batch"),
        (iter([data()]), "`dataset` must be one that can be iterated over repeatedly"),
    ],
)
def test_wrong_data(dataset, words):
    with pytest.raises(ValueError, match=words):
        recalibrate(MODELS["ours"](), dataset)


def test_endless_data():
    import tensorflow as tf

    with pytest.raises(ValueError, match="`dataset` must end"):
        recalibrate(MODELS["ours"](), tf.data.Dataset.from_tensors(data()).repeat())


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="`model` must be built"):
        recalibrate(keras.Sequential([BatchNormDense(8)]), data())
