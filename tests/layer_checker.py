"""What every public layer must do, proved by one call."""

import functools
import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from backends import HAS_XLA, IS_TORCH

SERVE = """
    import sys
    sys.modules["keras_bsnn"] = sys.modules["keras"] = None  # importing them fails
    import numpy as np
    import tensorflow as tf

    for line in sys.stdin:
        folder = line.strip()
        model = tf.saved_model.load(f"{folder}/saved_model")
        x = np.load(f"{folder}/x.npy")
        np.savez(f"{folder}/y.npz", all=model.serve(x), one=model.serve(x[:1]))
        print("served", folder, flush=True)
"""


def check_layer(layer_class, arguments, input_shape, output_shape, folder):
    """Checks a layer made by `layer_class(**arguments)`.

    Args:
        layer_class: the class.
        arguments: dict of its arguments; it may hold no object that has state.
        input_shape: of one sample.
        output_shape: expected, of one sample.
        folder: an empty folder to write to.
    """
    x = np.random.default_rng(0).normal(size=(12, *input_shape)).astype("float32")
    check_config(layer_class(**arguments))
    check_shape_and_dtype(layer_class(**arguments), x, output_shape)
    check_mixed_precision(layer_class, arguments, x)
    model = check_training(layer_class, arguments, x)
    check_reload(model, x, folder)
    check_export(model, x, folder)


def model_of(layer, x, jit_compile=False, **settings):
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
        jit_compile=jit_compile,
        **settings,
    )
    return model


def check_config(layer):
    config = layer.get_config()
    json.dumps(config)
    again = type(layer).from_config(config)
    assert again.get_config() == config


def check_shape_and_dtype(layer, x, output_shape):
    expected = (len(x), *output_shape)
    assert tuple(layer.compute_output_shape(x.shape)) == expected
    assert tuple(layer(keras.KerasTensor(x.shape)).shape) == expected
    y = keras.ops.convert_to_numpy(layer(x))
    assert y.shape == expected
    assert y.dtype == "float32"
    assert np.all(np.isfinite(y))


def check_training(layer_class, arguments, x):
    """Compiled or not: the same predictions, the same steps, constraints that hold.

    Returns:
        The model that is not compiled.
    """
    trained = []
    for jit_compile in (HAS_XLA, False):
        keras.utils.set_random_seed(1)
        model = model_of(layer_class(**arguments), x, jit_compile)
        y = model.predict(x, verbose=0)
        model.fit(x, 0.1 * y, epochs=2, batch_size=6, shuffle=False, verbose=0)
        weights = model.get_weights()
        assert np.all([np.all(np.isfinite(w)) for w in weights])
        check_constraints(model)
        trained.append([y, model.predict(x, verbose=0), *weights])
    if weights:
        assert np.abs(trained[0][0] - trained[0][1]).max() > 1e-3, "nothing was learned"
    for compiled, plain in zip(*trained, strict=True):
        np.testing.assert_allclose(plain, compiled, atol=1e-5)
    return model


def check_constraints(model):
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            w = keras.ops.convert_to_numpy(variable)
            again = keras.ops.convert_to_numpy(variable.constraint(variable))
            np.testing.assert_allclose(w, again, atol=1e-5)


def check_mixed_precision(layer_class, arguments, x):
    layer = layer_class(**arguments, dtype="mixed_bfloat16")
    model = model_of(layer, x, jit_compile=HAS_XLA)
    (y,) = model.outputs
    assert y.dtype == "bfloat16"
    assert {w.dtype for w in layer.trainable_weights} <= {"float32"}
    model.fit(x, np.zeros((len(x), *y.shape[1:])), verbose=0)
    check_constraints(model)


def check_reload(model, x, folder):
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), again.predict(x, verbose=0)
    )


def check_export(model, x, folder):
    """Exports with a free batch size, and serves where only TensorFlow is known.

    PyTorch writes a file of its own instead.
    """
    if IS_TORCH:
        return check_torch_export(model, x, folder / "model.pt2")
    model.export(folder / "saved_model", verbose=False)
    np.save(folder / "x.npy", x)
    print(folder, file=server().stdin, flush=True)
    assert server().stdout.readline() == f"served {folder}\n"
    expected, served = model.predict(x, verbose=0), np.load(folder / "y.npz")
    np.testing.assert_allclose(served["all"], expected, atol=1e-5)
    np.testing.assert_allclose(served["one"], expected[:1], atol=1e-5)


def check_torch_export(model, x, path):
    import torch

    if any(isinstance(layer, keras.layers.RNN) for layer in model.layers):
        pytest.skip("torch.export does not trace the loop of a recurrent layer")
    batch = {0: torch.export.Dim("batch")}
    model.export(path, format="torch", verbose=False, dynamic_shapes=batch)
    served = torch.export.load(path).module()
    expected = model.predict(x, verbose=0)
    for count in (len(x), 2):
        found = served(torch.tensor(x[:count])).detach()
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)


@functools.cache
def server():
    """Where only TensorFlow is known; one process for all, which ends with this one."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
