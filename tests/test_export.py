import keras
import numpy as np
import pytest

from keras_bsnn import export, models
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense
from keras_bsnn.recalibration import recalibrate


@pytest.fixture
def model():
    return models.bsnn_mlp(3, 8, "gp_tanh", input_shape=(4, 4, 1))


@pytest.mark.parametrize("batch", [1, 1000])
def test_it_serves_any_batch(model, batch, tmp_path):
    import tensorflow as tf

    export.saved_model(model, tmp_path / "served")
    x = np.random.default_rng(0).normal(size=(batch, 4, 4, 1)).astype("float32")
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(
        served.serve(x), keras.ops.convert_to_numpy(model(x)), atol=1e-5
    )


def test_a_folder_that_exists_is_left_alone(model, tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "precious").write_text("model")
    with pytest.raises(FileExistsError, match="served"):
        export.saved_model(model, tmp_path / "served")
    assert (tmp_path / "served" / "precious").read_text() == "model"


def test_a_failed_export_leaves_nothing(tmp_path):
    unbuilt = models.bsnn_mlp(3, 8, "gp_tanh")
    with pytest.raises(ValueError, match="built"):
        export.saved_model(unbuilt, tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def recalibrated(layers, x):
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    recalibrate(model, x)
    return model


FOLDED = {
    "dense": (lambda: [keras.layers.Dense(5), OrthogonalDense(4)], ["Dense"]),
    "normalization": (
        lambda: [keras.layers.Dense(5), keras.layers.BatchNormalization()],
        ["Dense"],
    ),
    "stack": (
        lambda: [DepthStack(BatchNormDense(6, affine=True), 50), keras.layers.Dense(3)],
        ["Dense"],
    ),
    "stack of models": (
        lambda: [
            DepthStack(
                keras.Sequential(
                    [
                        keras.Input((6,)),
                        keras.layers.Dense(6),
                        keras.layers.BatchNormalization(),
                    ]
                ),
                10,
            )
        ],
        ["Dense"],
    ),
    "activations stay": (
        lambda: [
            BatchNormDense(6),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(6, "tanh"),
            keras.layers.Dense(6),
            keras.layers.Dense(2),
        ],
        ["Dense", "Dense", "Dense"],
    ),
    "stack that is not linear": (
        lambda: [DepthStack(BatchNormDense(6, "tanh"), 5), BatchNormDense(6)],
        ["DepthStack", "Dense"],
    ),
    "nothing": (lambda: [keras.layers.Dropout(0.5)], ["Dropout"]),
}


@pytest.mark.parametrize("case", FOLDED)
def test_fold(case):
    make, expected = FOLDED[case]
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    model = recalibrated(make(), x)
    folded = export.fold(model)
    assert [type(layer).__name__ for layer in folded.layers] == expected
    np.testing.assert_allclose(
        folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )


def test_fold_of_sequences():
    x = np.random.default_rng(0).normal(size=(4, 3, 6)).astype("float32")
    model = keras.Sequential([keras.Input((3, 6)), DepthStack(OrthogonalDense(6), 9)])
    np.testing.assert_allclose(
        export.fold(model).predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )


def test_fold_takes_a_built_sequential():
    with pytest.raises(ValueError, match="`model` must be a built"):
        export.fold(keras.Sequential([keras.layers.Dense(2)]))
