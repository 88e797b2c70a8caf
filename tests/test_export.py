import keras
import numpy as np
import pytest

from keras_bsnn import export, models


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
