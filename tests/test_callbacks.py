import contextlib
import warnings

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose
from backends import HAS_XLA

from keras_bsnn import manifolds
from keras_bsnn.callbacks import RecalibrateBatchNorm, Retract, retract
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.models import batchnorm_mlp
from keras_bsnn.ops import orthogonal


def largest_error(model):
    return max(
        float(keras.ops.max(manifold.error(kernel)))
        for kernel, manifold in manifolds.constrained(model.trainable_variables)
    )


def model_of_both():
    """An orthogonal layer that is not square, a stack, and a layer of Keras."""
    constraint = Orthogonal(tolerance=0.1)
    return keras.Sequential(
        [
            keras.Input((6,)),
            OrthogonalDense(8, kernel_constraint=constraint),
            DepthStack(OrthogonalDense(8, kernel_constraint=constraint), 100),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_kernels_are_exact_at_the_end(jit_compile):
    model = model_of_both()
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6)).astype("float32")
    y = rng.normal(size=(32, 3)).astype("float32")
    model.fit(x, y, epochs=3, verbose=0)
    assert 1e-5 < largest_error(model) < 0.1
    model.fit(x, y, verbose=0, callbacks=[Retract()])
    assert len(list(manifolds.constrained(model.trainable_variables))) == 2
    assert largest_error(model) < 1e-6


def polar(kernel):
    u, _, v = np.linalg.svd(np.asarray(kernel, "float64"), full_matrices=False)
    return u @ v


def small_model(constraint="orthogonal", **kwargs):
    layers = [OrthogonalDense(8, kernel_constraint=constraint), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(keras.optimizers.SGD(0.3, **kwargs), "mse")
    return model


def data():
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return x, 3 * x[:, :3]


def fit(model, *callbacks, **kwargs):
    settings = {"batch_size": 8, "verbose": 0, **kwargs}
    return model.fit(*data(), callbacks=[*callbacks], **settings)


def leave(model):
    """Sets weights that are not orthogonal, and returns the first kernel's."""
    draw = np.random.default_rng(1).normal
    model.set_weights([w + draw(size=w.shape) for w in model.get_weights()])
    return model.get_weights()[0]


class Errors(keras.callbacks.Callback):
    """What the callbacks behind `Retract` find."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def look(self, when):
        self.found.setdefault(when, []).append(largest_error(self.model))

    def on_test_begin(self, logs=None):
        self.look("test")

    def on_predict_begin(self, logs=None):
        self.look("predict")

    def on_epoch_end(self, epoch, logs=None):
        self.look("epoch")

    def on_train_begin(self, logs=None):
        self.look("train")


@contextlib.contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def said(record):
    return [str(w.message) for w in record if "orthogonal kernels" in str(w.message)]


def test_any_matrix_becomes_the_nearest_orthogonal_one():
    """Twice an orthogonal matrix is one where plain Newton-Schulz steps go to minus."""
    layer = OrthogonalDense(5)
    layer.build((None, 5))
    kernel = np.random.default_rng(0).normal(size=(5, 5))
    for start in (kernel, 2 * polar(kernel)):
        layer.kernel.assign(start)
        with pytest.warns(UserWarning, match="had to be brought back"):
            retract(layer)
        np.testing.assert_allclose(layer.get_weights()[0], polar(kernel), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("frequency", [None, 3])
def test_averages_at_the_end_are_the_nearest_orthogonal_ones(frequency):
    """Keras puts them into the model after the last epoch."""
    settings = {"use_ema": True, "ema_momentum": 0.9}
    settings["ema_overwrite_frequency"] = frequency
    kernels = []
    for callbacks in ([], [Retract()]):
        keras.utils.set_random_seed(0)
        model = small_model(**settings)
        with pytest.warns(UserWarning, match="EMA") if callbacks else no_warning():
            fit(model, *callbacks, epochs=2)
        kernels.append(model.get_weights()[0])
    assert largest_error(model) < 1e-6
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
    np.testing.assert_allclose(kernels[1], polar(kernels[0]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_averages_that_are_evaluated_or_saved(swap_on_epoch, tmp_path):
    # An evaluation would leave orthogonal averages for the end of the epoch.
    validation = None if swap_on_epoch else data()
    path = str(tmp_path / "{epoch}.weights.h5")
    save = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    histories = []
    for retracts in ([], [Retract()]):
        keras.utils.set_random_seed(0)
        model = small_model(use_ema=True, ema_momentum=0.9)
        swap, errors = keras.callbacks.SwapEMAWeights(swap_on_epoch), Errors()
        callbacks = [swap, *retracts, errors, save]
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            history = fit(model, *callbacks, epochs=3, validation_data=validation)
        histories.append(history.history)
        assert len(said(record)) == len(retracts)
        found = errors.found["epoch" if swap_on_epoch else "test"]
        assert len(found) == 3
        assert max(found) < 1e-5 if retracts else max(found) > 0.1
    assert largest_error(model) < 1e-6
    for epoch in range(1, 4):
        model.load_weights(path.format(epoch=epoch))
        assert largest_error(model) < 1e-5
    # The optimizer goes its way as without the callback.
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-4)
    if validation:
        assert histories[0]["val_loss"][0] != histories[1]["val_loss"][0]


@pytest.mark.parametrize("use", ["evaluate", "predict", "fit"])
def test_weights_that_were_set(use):
    model = small_model()
    kernel = leave(model)
    error = f"{largest_error(model):.3g}"
    errors = Errors()
    x, y = data()
    arguments = {"x": x} if use == "predict" else {"x": x, "y": y}
    with pytest.warns(UserWarning) as record:
        getattr(model, use)(**arguments, verbose=0, callbacks=[Retract(), errors])
    (message,) = said(record)
    assert message.startswith("1 of the orthogonal kernels")
    assert f"{model.layers[0].kernel.path!r}, had" in message
    assert f"an orthogonality error of {error}." in message
    when = {"evaluate": "test", "predict": "predict", "fit": "train"}[use]
    assert max(errors.found[when]) < 1e-6
    if use != "fit":
        near = model.get_weights()[0]
        np.testing.assert_allclose(near, polar(kernel), atol=1e-5)


def test_weights_that_were_loaded(tmp_path):
    free = small_model(constraint=None)
    leave(free)
    free.save_weights(tmp_path / "free.weights.h5")
    model = small_model()
    model.load_weights(tmp_path / "free.weights.h5")
    assert largest_error(model) > 0.1
    with pytest.warns(UserWarning, match="set or loaded"):
        retract(model)
    assert largest_error(model) < 1e-6
    with no_warning():
        retract(model)


def test_only_the_kernels_of_a_stack_that_need_it():
    stack = DepthStack(OrthogonalDense(4), 7)
    stack.build((None, 4))
    before = keras.ops.convert_to_numpy(stack.weights[0]).copy()
    changed = before.copy()
    changed[3] *= 1.5
    changed[5] *= 2
    stack.weights[0].assign(changed)
    model = keras.Sequential([keras.Input((4,)), stack])
    with pytest.warns(UserWarning, match=r"2 of .* matrix 5 of '.*kernel', had .* 3\."):
        model.predict(np.ones((2, 4)), verbose=0, callbacks=[Retract()])
    after = keras.ops.convert_to_numpy(stack.weights[0])
    np.testing.assert_allclose(after, before, atol=1e-5)
    untouched = [0, 1, 2, 4, 6]
    np.testing.assert_array_equal(after[untouched], before[untouched])


@pytest.mark.parametrize("alpha", [None, 6])
def test_the_sum_of_a_kernel_and_its_lora(alpha):
    dense = keras.layers.Dense(8, kernel_constraint=Orthogonal())
    model = keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(3)])
    retract_quietly(model)
    dense.kernel_constraint = None  # Keras has no LoRA otherwise
    dense.enable_lora(2, lora_alpha=alpha)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    fit(model)
    assert orthogonal.orthogonality_error(dense.kernel) > 1e-3
    before = keras.ops.convert_to_numpy(dense.kernel)
    factors = [dense.lora_kernel_a, dense.lora_kernel_b]
    values = [keras.ops.convert_to_numpy(factor).copy() for factor in factors]
    with pytest.warns(UserWarning, match=r"dense.*/kernel.*LoRA"):
        model.evaluate(*data(), verbose=0, callbacks=[Retract()])
    assert_allclose(dense.kernel, polar(before), atol=1e-5)
    for factor, value in zip(factors, values, strict=True):
        np.testing.assert_array_equal(factor, value)
    with pytest.warns(UserWarning, match="LoRA"):
        fit(model, Retract())
    assert orthogonal.orthogonality_error(dense.kernel) < 1e-6


def retract_quietly(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        retract(model)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "bfloat16", "float16"])
def test_what_the_constraint_allows_is_no_surprise(dtype):
    keras.utils.set_random_seed(0)
    layers = [
        OrthogonalDense(8, dtype=dtype, kernel_constraint=Orthogonal(tolerance=0.1)),
        DepthStack(OrthogonalDense(8, dtype=dtype), 5),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.001), "mse")
    fit(model)
    assert largest_error(model) > 1e-5
    with no_warning():
        fit(model, Retract(), epochs=2, validation_data=data())
        model.evaluate(*data(), verbose=0, callbacks=[Retract()])
        retract(model)


def test_entries_that_are_not_finite():
    """They are told of, left, and no reason not to save the model."""
    model = model_of_both()
    model.compile("sgd", "mse")
    leave(model)
    wide, stack, *_ = [variable.numpy().copy() for variable in model.weights[::2]]
    stack[2, 0, 0] = np.nan
    model.weights[2].assign(stack)
    callback = Retract()
    callback.set_model(model)
    with pytest.warns(UserWarning) as record:
        callback.on_train_end()
    broken, far = sorted(said(record))
    assert broken.startswith("1 of the orthogonal kernels could not be brought back")
    assert f"matrix 2 of {model.weights[2].path!r}" in broken
    assert far.startswith("100 of")
    near = keras.ops.convert_to_numpy(model.weights[2])
    np.testing.assert_array_equal(near[2], stack[2])
    np.testing.assert_allclose(near[3], polar(stack[3]), atol=1e-5)
    np.testing.assert_allclose(model.weights[0], polar(wide), atol=1e-5)


def test_frozen_kernels_change_only_if_they_must():
    model = small_model()
    layer = model.layers[0]
    layer.trainable = False
    almost = layer.get_weights()[0] + 1e-6
    layer.kernel.assign(almost)
    with no_warning():
        retract(model)
    np.testing.assert_array_equal(layer.get_weights()[0], almost)
    layer.kernel.assign(2 * almost)
    with pytest.warns(UserWarning, match=layer.kernel.path):
        retract(model)
    np.testing.assert_allclose(layer.get_weights()[0], almost, atol=1e-5)


def test_a_retraction_in_the_middle_of_an_epoch_is_kept():
    model = small_model(Orthogonal(tolerance=0.9))
    model.optimizer.learning_rate = 0.0
    model.layers[0].kernel.assign(1.2 * model.get_weights()[0])

    def now(batch, logs):  # through `model`: `Callback.model` would fetch the weights
        if batch == 1:
            retract_quietly(model)

    fit(model, keras.callbacks.LambdaCallback(on_train_batch_end=now))
    assert largest_error(model) < 1e-6


@pytest.mark.slow
def test_recalibrated_before_validation_and_at_the_end():
    """Evaluation, also that within `fit`, has the statistics of the given data."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 12)).astype("float32")
    y = x[:, :10] @ np.ones((10, 1), "float32")
    model = batchnorm_mlp(50, 10, None, 1, input_shape=(12,))
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=HAS_XLA)
    settings = {"batch_size": 64, "epochs": 3, "verbose": 0}
    settings["callbacks"] = [RecalibrateBatchNorm(x)]
    found = model.fit(x, y, validation_data=(x, y), **settings).history["val_loss"]
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), found[-1], rtol=1e-5)
    with_all_of_the_data = np.mean(np.square(array(model(x, training=True)) - y))
    np.testing.assert_allclose(found[-1], with_all_of_the_data, rtol=1e-4)
