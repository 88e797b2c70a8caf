"""Of files for other runtimes: they predict what the model does, whatever it is."""

import keras
import numpy as np
import pytest
from draws import array, normal, property_of, rarely, seeds
from hypothesis import given
from hypothesis import strategies as st
from runtimes import run_litert, run_onnx

from keras_bsnn import export, models

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow writes these files"
)


def model_of(name, depth, seed):
    return models.bsnn_mlp(depth, 3, name, input_shape=(4,), classes=2, seed=seed)


@pytest.mark.slow
@property_of(export.litert, export.onnx)
@rarely
@given(
    format=st.sampled_from([(export.litert, run_litert), (export.onnx, run_onnx)]),
    name=st.sampled_from(["gp_tanh", "gp_relu", "gp_elu"]),
    depth=st.integers(1, 3),
    samples=st.integers(1, 5),
    seed=seeds,
)
def test_other_runtimes_predict_the_same(
    tmp_path_factory, format, name, depth, samples, seed
):
    write, run = format
    path = tmp_path_factory.mktemp("exported") / "model.tflite"
    model, x = model_of(name, depth, seed), normal((samples, 4), seed, "float32")
    write(model, path)
    np.testing.assert_allclose(run(path, x), array(model(x)), atol=1e-5)
