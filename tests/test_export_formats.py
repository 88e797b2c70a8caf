"""LiteRT and ONNX files, run in their own runtimes, give what Keras gives."""

import functools

import keras
import numpy as np
import pytest
from runtimes import run_litert, run_onnx

from keras_bsnn import export, models
from keras_bsnn.layers import DepthStack
from keras_bsnn.recalibration import recalibrate

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes these files"
)
SHAPE, LENGTH = (4, 4, 1), 8
MODELS = {
    "gelu": lambda: models.bsnn_mlp(10, 12, "gelu", input_shape=SHAPE),
    "gp_tanh": lambda: models.bsnn_mlp(10, 12, "gp_tanh", input_shape=SHAPE),
    "batchnorm": lambda: models.batchnorm_mlp(10, 12, input_shape=SHAPE),
    "sine": lambda: models.batchnorm_mlp(10, 12, "sin", input_shape=SHAPE),
    "linear": lambda: models.batchnorm_mlp(100, 12, None, input_shape=SHAPE),
    "roaf": lambda: models.roaf_mlp(10, 12, input_shape=SHAPE),
    "recurrent": lambda: recurrent(activation="relu"),
    "recurrent, fixed": lambda: recurrent(LENGTH, activation="relu"),
    "recurrent, filter": lambda: recurrent(filter="shift"),
    "sequences": lambda: recurrent(activation="relu", return_sequences=True),
}


def recurrent(length=None, **kwargs):
    return models.roaf_rnn(12, alpha=0.9, input_shape=(length, 2), **kwargs)


def samples(model):
    x = np.random.default_rng(0).normal(size=(1000, 16)).astype("float32")
    return x.reshape(-1, *(n or LENGTH for n in model.input_shape[1:]))


@functools.cache
def recalibrated(name):
    """A model, samples, and what it makes of them."""
    model = MODELS[name]()
    x = samples(model)
    recalibrate(model, x)
    return model, x, keras.ops.convert_to_numpy(model(x))


FORMATS = {"tflite": (export.litert, run_litert), "onnx": (export.onnx, run_onnx)}


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_predictions(name, format, tmp_path):
    write, run = FORMATS[format]
    model, x, expected = recalibrated(name)
    assert np.std(expected) > 1e-3
    one = {"batch_size": 1} if (name, format) == ("sequences", "tflite") else {}
    write(model, path := tmp_path / f"model.{format}", **one)
    tolerance = 1e-5 * max(1, np.abs(expected).max())
    for rows in [1] if one else [1, 1000]:
        np.testing.assert_allclose(run(path, x[:rows]), expected[:rows], atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_stack_of_layers_without_bias(format, tmp_path):
    """LiteRT's converter has lost the ReLU after a product in a loop."""
    write, run = FORMATS[format]
    block = keras.layers.Dense(3, "relu", use_bias=False)
    model = keras.Sequential([keras.Input((3,)), DepthStack(block, 3)])
    write(model, path := tmp_path / f"model.{format}")
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    np.testing.assert_allclose(run(path, x), model.predict(x, verbose=0), atol=1e-5)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_of_plain_layers(format, tmp_path):
    write, run = FORMATS[format]
    for name in ("gelu", "recurrent"):
        model = MODELS[name]()
        x = samples(model)[:1]
        one = {"batch_size": 1} if (name, format) == ("recurrent", "tflite") else {}
        write(export.to_keras(model), path := tmp_path / f"{name}.{format}", **one)
        expected = keras.ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(run(path, x), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_sequences_of_any_length(format, tmp_path):
    write, run = FORMATS[format]
    model = recurrent()
    write(model, path := tmp_path / f"model.{format}")
    for length in (1, 30):
        x = np.random.default_rng(0).normal(size=(5, length, 2)).astype("float32")
        expected = keras.ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(run(path, x), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_preprocessing(format, tmp_path):
    write, run = FORMATS[format]
    model = MODELS["gelu"]()
    layers = [keras.Input(SHAPE, dtype="uint8"), keras.layers.Rescaling(0.1)]
    write(model, path := tmp_path / f"model.{format}", keras.Sequential(layers))
    raw = np.random.default_rng(0).integers(0, 255, (3, *SHAPE), dtype="uint8")
    expected = keras.ops.convert_to_numpy(model(raw * np.float32(0.1)))
    np.testing.assert_allclose(run(path, raw), expected, atol=1e-5)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, "gelu")

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("format", FORMATS)
def test_subclassed_models(format, tmp_path):
    write, run = FORMATS[format]
    model = Subclassed()
    x = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x))
    write(model, path := tmp_path / f"model.{format}")
    for rows in (1, 7):
        np.testing.assert_allclose(run(path, x[:rows]), expected[:rows], atol=1e-5)


def test_tf2onnx_is_left_as_it_is(tmp_path):
    from tf2onnx.constants import ONNX_DOMAIN
    from tf2onnx.handler import tf_op

    export.onnx(MODELS["gelu"](), tmp_path / "model.onnx")
    known = [name for names in tf_op.get_opsets()[ONNX_DOMAIN] for name in names]
    assert "Erf" in known and "Erfc" not in known


class InverseErf(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.erfinv(inputs)


@pytest.mark.parametrize("format", FORMATS)
def test_an_operation_that_is_lacking(format, tmp_path):
    model = keras.Sequential([keras.Input((3,)), InverseErf()])
    with pytest.raises(ValueError, match="It lacks: Erfinv"):
        FORMATS[format][0](model, tmp_path / f"model.{format}")
    assert [*tmp_path.iterdir()] == []


def test_bad_arguments(tmp_path):
    model = MODELS["gelu"]()
    with pytest.raises(ValueError, match=r"`path` must end in \.tflite.*model\.lite"):
        export.litert(model, tmp_path / "model.lite")
    with pytest.raises(ValueError, match=r"`batch_size`.*Received: batch_size=0"):
        export.litert(model, tmp_path / "model.tflite", batch_size=0)
    with pytest.raises(ValueError, match=r"`batch_size` must be a number.*no sequence"):
        export.litert(MODELS["sequences"](), tmp_path / "model.tflite")
    for format, (write, _) in FORMATS.items():
        (path := tmp_path / f"precious.{format}").write_text("model")
        with pytest.raises(FileExistsError, match="precious"):
            write(model, path)
        assert path.read_text() == "model"
        with pytest.raises(ValueError, match="`model` must be a built"):
            write(keras.Sequential([keras.layers.Dense(2)]), tmp_path / f"b.{format}")
