import keras
import numpy as np
import pytest

from keras_bsnn import constraints
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.layers import OrthogonalDense
from keras_bsnn.ops import orthogonal

OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "muon": keras.optimizers.Muon,
}


def network(**settings):
    return keras.Sequential(
        [
            keras.Input((12,)),
            OrthogonalDense(16, activation="gp_tanh", **settings),
            OrthogonalDense(16, activation="gp_tanh", use_bias=False, **settings),
            OrthogonalDense(5, **settings),
        ]
    )


def errors(model):
    kernels = [layer.kernel for layer in model.layers]
    return [float(orthogonal.orthogonality_error(kernel)) for kernel in kernels]


def fit(model, optimizer, jit_compile, steps=12, x=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16 * steps, 12)).astype("float32") if x is None else x
    y = rng.integers(0, 5, size=len(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return model.fit(x, y, batch_size=16, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "learning_rate", "jit_compile", "policy"),
    [  # each two of the four meet
        ("sgd", 0.1, False, "float32"),
        ("sgd", 10.0, True, "mixed_bfloat16"),
        ("adam", 0.1, True, "mixed_bfloat16"),
        ("adam", 10.0, False, "float32"),
        ("muon", 0.1, True, "float32"),
        ("muon", 10.0, False, "mixed_bfloat16"),
    ],
)
def test_kernels_are_orthogonal_after_training(
    name, learning_rate, jit_compile, policy
):
    model = network(dtype=policy)
    before = model.get_weights()
    fit(model, OPTIMIZERS[name](learning_rate), jit_compile)
    assert max(errors(model)) < 1e-5
    moved = [
        np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)
    ]
    assert min(moved) > 1e-4, "nothing was trained"


@pytest.mark.slow
@pytest.mark.parametrize("retraction", ["qr", "cayley"])
def test_other_retractions(retraction):
    model = network(kernel_constraint=Orthogonal(retraction))
    fit(model, keras.optimizers.SGD(1.0), jit_compile=True)
    assert max(errors(model)) < 1e-5


@keras.saving.register_keras_serializable("test")
def no_retraction(matrix):
    return matrix


def test_a_callable_is_guarded_too():
    """One that does nothing leaves all the work to the guard."""
    constraint = Orthogonal(no_retraction)
    w = np.random.default_rng(0).normal(size=(6, 6)).astype("float32")
    assert orthogonal.orthogonality_error(constraint(w)) < 1e-5


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_gradient_that_is_not_finite_shows_in_the_loss(jit_compile):
    """Compiled code cannot raise: the kernel stays orthogonal, the loss tells."""
    model, x = network(), np.full((32, 12), np.nan, "float32")
    if keras.backend.backend() == "jax" and not jit_compile:  # Keras runs it eagerly
        with pytest.raises(ValueError, match="cannot be retracted"):
            fit(model, "sgd", jit_compile, x=x)
        return
    history = fit(model, "sgd", jit_compile, x=x)
    assert max(errors(model)) < 1e-5
    assert np.isnan(history.history["loss"][0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_kernel_that_is_not_finite_raises(value):
    w = np.eye(4, dtype="float32")
    w[1, 2] = value
    with pytest.raises(ValueError, match=r"\(4, 4\) cannot be retracted"):
        Orthogonal()(w)


def test_half_precision_variables():
    layer = OrthogonalDense(64, dtype="bfloat16")
    model = keras.Sequential([keras.Input((64,)), layer])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 64)), np.zeros((8, 64)), verbose=0)
    assert layer.kernel.dtype == "bfloat16"
    assert errors(model)[0] < 2e-2  # a bfloat16 has three digits


@pytest.mark.parametrize(
    "constraint", [Orthogonal(), Orthogonal("qr", 5), Orthogonal(no_retraction)]
)
def test_config(constraint):
    config = keras.constraints.serialize(constraint)
    again = keras.constraints.deserialize(config)
    assert again.get_config() == constraint.get_config()
    w = np.eye(3, dtype="float32") + 0.01
    np.testing.assert_array_equal(again(w), constraint(w))


@pytest.mark.parametrize("retraction", ["svd", None, 3, "", ["qr"]])
def test_unknown_retraction(retraction):
    names = ".*".join(sorted(constraints.RETRACTIONS))
    with pytest.raises(ValueError, match=f"`retraction` must be one of.*{names}"):
        Orthogonal(retraction)


@pytest.mark.parametrize("steps", [0, 1.0, None])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="`steps`"):
        Orthogonal(steps=steps)


class Errors(keras.callbacks.Callback):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(errors(self.model))  # on JAX, only this has its weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "jit_compile"), [("sgd", True), ("adam", False), ("muon", False)]
)
def test_a_tolerance_is_kept_at_any_time(optimizer, jit_compile):
    """After every step, at small and at large rates, and with less work to do."""
    x, y = keras.random.normal((60, 12)), keras.random.normal((60, 5))
    model = network(
        kernel_constraint=Orthogonal(steps=1, tolerance=5e-5), tangent_gradient=True
    )
    model.compile(OPTIMIZERS[optimizer](), "mse", jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces twice
    for rate in (1e-4, 1e-2, 1.0):
        model.optimizer.learning_rate = rate
        found = []
        model.fit(x, y, batch_size=6, epochs=2, verbose=0, callbacks=[Errors(found)])
        assert len(found) == 20
        assert np.max(found) < 1e-4


@pytest.mark.parametrize("tolerance", [-1e-3, 1, "small"])
def test_bad_tolerances(tolerance):
    with pytest.raises(ValueError, match="`tolerance`"):
        Orthogonal(tolerance=tolerance)
