"""What a newcomer is told."""

import functools

import keras
import numpy as np
import pytest
from arrays import array

import keras_bsnn
from keras_bsnn import activations, constraints, datasets, diagnostics, layers, models
from keras_bsnn.ops import gaussian, orthogonal


@pytest.mark.parametrize(
    ("written", "meant"),
    [("gp-tanh", "gp_tanh"), ("gp_tahn", "gp_tanh"), ("GELU", "gelu"), ("sine", "sin")],
)
def test_the_nearest_activation_is_suggested(written, meant):
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
        activations.get(written)


def test_the_nearest_data_set_is_suggested():
    with pytest.raises(ValueError, match="Did you mean 'mnist'"):
        datasets.load("MNIST")
    with pytest.raises(ValueError) as caught:
        datasets.load("something else")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["ROAF", "ROAFCell", "ROAFDense"])
def test_alpha_is_explained(name):
    with pytest.raises(ValueError, match=r"`alpha`.*1 / \(1 - alpha\).*alpha=None"):
        getattr(layers, name)(8)


def test_a_stack_says_what_it_holds():
    stacks = [layers.DepthStack(keras.layers.Dense(4), 77) for _ in range(2)]
    names = [stack.name for stack in stacks]
    assert names[0].startswith("depth_stack_77_dense") and names[0] != names[1]
    assert "depth=77, block=Dense" in repr(stacks[0])
    assert layers.DepthStack(keras.layers.Dense(4), 7, name="mine").name == "mine"


def test_warnings_have_a_class():
    with pytest.warns(keras_bsnn.KerasBSNNWarning, match="no stable"):
        gaussian.gp_constants(lambda x: x**3)


def test_affine_functions_of_any_slope_reach_no_correlation():
    for slope in (-1.0, -0.3, 2.0):
        epsilon = gaussian.shaping_epsilon(lambda x, a=slope: a * x + 0.1, 100, 0.5)
        assert np.isinf(epsilon)


def test_names_that_keras_finds():
    """Its constraints and activations take no names of others; these are objects."""
    layer = keras.layers.Dense(
        4,
        activation=activations.get("gp_tanh"),
        kernel_initializer="keras_bsnn>HaarOrthogonal",
        kernel_constraint=constraints.Orthogonal(),
    )
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("stiefel_muon", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 4)), verbose=0)
    assert type(model.optimizer).__name__ == "StiefelMuon"
    assert orthogonal.orthogonality_error(layer.kernel) < 1e-5


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (layers.OrthogonalDense, ("kernel", "bias")),
        (layers.BatchNormDense, ("kernel",)),
        (functools.partial(layers.ROAFDense, alpha=0.9), ("kernel", "bias")),
    ],
    ids=["OrthogonalDense", "BatchNormDense", "ROAFDense"],
)
def test_regularizers_are_those_of_keras(make, names):
    layer = make(3, **{f"{name}_regularizer": "l1" for name in names})
    layer.build((None, 3))
    expected = [0.01 * np.abs(array(getattr(layer, name))).sum() for name in names]
    np.testing.assert_allclose(np.sum(array(layer.losses)), np.sum(expected), rtol=1e-5)


class TestHintsOfAReport:
    images = np.random.default_rng(0).integers(256, size=(8, 4))
    targets = np.zeros((8, 10))

    def hints(self, model, x):
        return diagnostics.signal_report(model, x, self.targets, loss="mse").hints

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_images_are_not_centered(self, dtype):
        model = models.bsnn_mlp(3, 8, input_shape=(4,))
        (hint,) = self.hints(model, self.images.astype(dtype))
        assert "Rescaling(1 / 127.5, offset=-1)" in hint

    def test_images_are_centered(self):
        model = models.bsnn_mlp(3, 8, input_shape=(4,))
        assert not self.hints(model, self.images.astype("float32") / 127.5 - 1)
        rescaling = keras.layers.Rescaling(1 / 127.5, offset=-1)
        model = keras.Sequential(
            [keras.Input((2, 2)), keras.layers.Flatten(), rescaling, model]
        )
        assert not self.hints(model, self.images.reshape(8, 2, 2))

    def test_weights_outside_of_layers(self):
        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.flatten = keras.layers.Flatten()

            def build(self, input_shape):
                self.w = self.add_weight(shape=(4, 10))

            def call(self, x):
                return keras.ops.matmul(self.flatten(x), self.w)

        model = Own()
        model(np.ones((8, 4), "float32"))
        (hint,) = self.hints(model, self.images.astype("float32"))
        assert "Rescaling" in hint

    def test_an_optimizer_whose_rate_falls_with_depth(self):
        deep, shallow = (models.bsnn_mlp(n, 8, input_shape=(4,)) for n in (100, 3))
        x = np.ones((8, 4))
        for model in deep, shallow:
            model.compile(keras.optimizers.Adam(1e-3), "mse", jit_compile=True)
        (hint,) = self.hints(deep, x)
        assert hint.startswith("Adam") and "StiefelMuon(0.05)" in hint
        assert hint in diagnostics.signal_report(deep, x, self.targets).verdict
        assert not self.hints(shallow, x)
        deep.compile("stiefel_muon", "mse", jit_compile=True)
        assert not self.hints(deep, x)

    @pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="others compile by default"
    )
    def test_a_stack_waits_for_xla(self):
        model = models.bsnn_mlp(3, 8, input_shape=(4,))
        model.compile("stiefel_muon", "mse", jit_compile=False)
        (hint,) = self.hints(model, np.ones((8, 4)))
        assert "jit_compile=True" in hint
