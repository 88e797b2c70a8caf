import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from arrays import assert_allclose
from backends import writes_saved_model

from keras_bsnn import export, models
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense
from keras_bsnn.recalibration import recalibrate


@pytest.fixture
def model():
    return models.bsnn_mlp(3, 8, "gp_tanh", input_shape=(4, 4, 1))


@pytest.mark.slow
@writes_saved_model
def test_it_serves_any_batch(model, tmp_path):
    import tensorflow as tf

    export.saved_model(model, tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    for batch in (1, 1000):
        x = np.random.default_rng(0).normal(size=(batch, 4, 4, 1)).astype("float32")
        expected = keras.ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(served.serve(x), expected, atol=1e-5)


def test_classes_of_others_are_not_folded():
    class Curved(keras.layers.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    model = keras.Sequential([keras.Input((4,)), Curved(3), Curved(2)])
    assert [type(layer) for layer in export.fold(model).layers] == [Curved, Curved]


@writes_saved_model
def test_a_folder_that_exists_is_left_alone(model, tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "precious").write_text("model")
    with pytest.raises(FileExistsError, match="served"):
        export.saved_model(model, tmp_path / "served")
    assert (tmp_path / "served" / "precious").read_text() == "model"


@writes_saved_model
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
    assert_allclose(folded(x), model(x), atol=1e-5)


def test_fold_keeps_a_bottleneck():
    layers = [keras.layers.Dense(n) for n in (2, 50)]
    folded = export.fold(keras.Sequential([keras.Input((40,)), *layers]))
    assert [layer.units for layer in folded.layers] == [2, 50]


def test_fold_of_sequences():
    x = np.random.default_rng(0).normal(size=(4, 3, 6)).astype("float32")
    model = keras.Sequential([keras.Input((3, 6)), DepthStack(OrthogonalDense(6), 9)])
    assert_allclose(export.fold(model)(x), model(x), atol=1e-5)


def test_fold_takes_a_built_sequential():
    with pytest.raises(ValueError, match="`model` must be a built"):
        export.fold(keras.Sequential([keras.layers.Dense(2)]))


RAW = keras.Sequential(
    [keras.Input((4, 4, 1), dtype="uint8"), keras.layers.Rescaling(0.1)]
)


@writes_saved_model
def test_preprocessing_is_served_too(model, tmp_path):
    import tensorflow as tf

    export.saved_model(model, tmp_path / "served", preprocessing=RAW)
    raw = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 1), dtype="uint8")
    served = tf.saved_model.load(tmp_path / "served")
    expected = model.predict(raw * np.float32(0.1), verbose=0)
    np.testing.assert_allclose(served.serve(raw), expected, atol=1e-5)


@writes_saved_model
def test_named_signatures(model, tmp_path):
    import tensorflow as tf

    outputs = {"logits": model.outputs[0], "hidden": model.layers[-2].output}
    both = keras.Model(model.inputs, outputs)
    export.saved_model(model, tmp_path / "served", RAW, {"signal": both})
    served = tf.saved_model.load(tmp_path / "served")
    assert {*served.signatures} == {"serve", "serving_default", "signal"}
    raw = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 1), dtype="uint8")
    expected = both.predict(raw * np.float32(0.1), verbose=0)
    found = served.signal(raw)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    np.testing.assert_allclose(served.serve(raw), expected["logits"], atol=1e-5)
    assert export.verify(tmp_path / "served")["parameters"] == model.count_params()


@writes_saved_model
def test_signatures_have_the_inputs_of_the_model(model, tmp_path):
    other = models.bsnn_mlp(3, 8, input_shape=(5,))
    with pytest.raises(ValueError, match=r"`signatures\['x'\]` must.*\(None, 5\)"):
        export.saved_model(model, tmp_path / "served", signatures={"x": other})


@pytest.mark.slow
@writes_saved_model
def test_sequences_of_any_length(tmp_path):
    import tensorflow as tf

    model = models.roaf_rnn(8, alpha=0.9, input_shape=(None, 2))
    export.saved_model(model, tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    for batch, length in ((1, 30), (5, 7)):
        x = np.random.default_rng(0).normal(size=(batch, length, 2)).astype("float32")
        expected = model.predict(x, verbose=0)
        np.testing.assert_allclose(served.serve(x), expected, atol=1e-5)


@pytest.mark.slow
@writes_saved_model
def test_killed_before_the_end_it_leaves_no_folder(tmp_path):
    code = """if True:
        import os, signal
        from keras_bsnn import export, models
        def killed(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        os.rename = killed  # all is written by then
        model = models.bsnn_mlp(3, 8, input_shape=(4,))
        export.saved_model(model, "served")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    (draft,) = tmp_path.iterdir()
    assert draft.name.startswith(".served-") and (draft / "served").exists()


@writes_saved_model
def test_a_certificate_tells_of_each_kernel(model, tmp_path):
    export.saved_model(model, tmp_path / "served")
    found = export.verify(tmp_path / "served")
    assert found["parameters"] == model.count_params()
    assert found["versions"]["keras"] == keras.__version__
    first, stack, last = found["kernels"]
    assert stack["shape"] == [3, 8, 8] and stack["orthogonal"]
    assert stack["orthogonality_error"] < 1e-5
    assert stack["largest_singular_value"] == pytest.approx(1, abs=1e-5)
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel)
    assert not last["orthogonal"] and not first["orthogonal"]
    assert last["largest_singular_value"] == pytest.approx(np.linalg.norm(kernel, 2))


@pytest.mark.slow
@writes_saved_model
def test_a_certificate_takes_each_layer_of_a_stack(tmp_path):
    """Its kernels are measured as they are outside of it."""
    inner = DepthStack(keras.layers.Dense(3), 2)
    convolution = keras.layers.Conv2D(3, 3, padding="same")
    layers = [DepthStack(inner, 4), DepthStack(convolution, 2)]
    model = keras.Sequential([keras.Input((5, 5, 3)), *layers])
    export.saved_model(model, tmp_path / "served")
    dense, patches = export.verify(tmp_path / "served")["kernels"]
    assert dense["shape"] == [4, 2, 3, 3] and patches["shape"] == [2, 3, 3, 3, 3]
    kernels = (keras.ops.convert_to_numpy(layer.weights[0]) for layer in model.layers)
    for found, kernel in zip((dense, patches), kernels, strict=True):
        matrices = kernel.reshape(8 if found is dense else 2, -1, 3)
        norms = np.linalg.norm(matrices, 2, axis=(1, 2))
        assert found["largest_singular_value"] == pytest.approx(norms.max())


@writes_saved_model
def test_the_hash_is_that_of_the_weights(model, tmp_path):
    hashes = []
    for k in range(3):
        export.saved_model(model, tmp_path / f"{k}")
        hashes.append(export.verify(tmp_path / f"{k}")["weights_sha256"])
        if k == 1:
            model.layers[-1].bias.assign_add(np.full(10, 1e-6, "float32"))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
@writes_saved_model
def test_other_files_are_not_certified(model, tmp_path, damage):
    folder = tmp_path / "served"
    export.saved_model(model, folder)
    (weights,) = folder.glob("variables/*.data*")
    if damage == "remove":
        weights.unlink()
    elif damage == "add":
        weights.with_name("new").write_text("")
    else:
        values = bytearray(weights.read_bytes())
        values[len(values) // 2] ^= 1
        weights.write_bytes(values)
    with pytest.raises(ValueError, match=r"variables/.* changed, went or came"):
        export.verify(folder)


@writes_saved_model
def test_what_is_not_certified_is_not_exported(model, tmp_path):
    stack = model.layers[-2]
    kernels = keras.ops.convert_to_numpy(stack.trainable_variables[0])
    stack.trainable_variables[0].assign(1.01 * kernels)
    with pytest.raises(ValueError, match=r"error of 0\.0[12].*above 0\.0001.*retract"):
        export.saved_model(model, tmp_path / "served")
    stack.trainable_variables[0].assign(kernels)
    model.layers[-1].bias.assign(np.full(10, np.nan, "float32"))
    with pytest.raises(ValueError, match=r"finite weights: .*bias' has others"):
        export.saved_model(model, tmp_path / "served")
    assert list(tmp_path.iterdir()) == []
