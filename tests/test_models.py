import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, assert_array_equal
from backends import HAS_XLA
from networks import layers_of

from keras_bsnn import diagnostics, manifolds, models
from keras_bsnn.activations import DepthShaped, GaussianPoincare
from keras_bsnn.callbacks import Retract
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.ops import _integrals, gaussian
from keras_bsnn.optimizers import StiefelMuon

IS_JAX = keras.backend.backend() == "jax"  # which is slow without XLA


def data(samples=32, size=20):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, size)).astype("float32")
    return x, rng.integers(0, 10, size=samples)


def compiled(model, jit_compile=False):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(3e-3, momentum=0.9), loss, jit_compile=jit_compile
    )
    return model


@pytest.mark.parametrize("stacked", [True, False])
def test_what_it_is_made_of(stacked):
    model = models.bsnn_mlp(12, 16, input_shape=(4, 4, 1), stacked=stacked)
    assert len(layers_of(model, OrthogonalDense)) == 12
    assert len(model.layers) == (7 if stacked else 18)
    assert model.output_shape == (None, 10)
    activation = layers_of(model, OrthogonalDense)[0].activation
    assert isinstance(activation, DepthShaped)
    assert (activation.depth, activation.eta) == (12, 0.15)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_stack_and_a_sequential_give_the_same_numbers(jit_compile):
    x, y = data()
    stacked, sequential = (
        compiled(models.bsnn_mlp(2, 16, input_shape=(20,), stacked=s), jit_compile)
        for s in (True, False)
    )
    first, stack, last = (layer for layer in stacked.layers if layer.weights)
    layers = [first, *(stack.layer_at(i) for i in range(2)), last]
    sequential.set_weights([w for layer in layers for w in layer.get_weights()])
    for _ in range(3):
        losses = [model.train_on_batch(x, y) for model in (stacked, sequential)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    assert_allclose(stacked(x), sequential(x), atol=1e-5)


def test_a_normalized_activation_is_used_as_it_is():
    *_, first, stack, _ = models.bsnn_mlp(2, 8, activation="gp_tanh").layers
    for layer in (first, stack.block):
        assert isinstance(layer.activation, GaussianPoincare)
    own = GaussianPoincare("elu")
    *_, first, stack, _ = models.bsnn_mlp(2, 8, own).layers
    assert first.activation is own and stack.block.activation is own


def test_a_seed_repeats_the_weights():
    first, second, third = (
        models.bsnn_mlp(4, 8, "gp_relu", input_shape=(8,), seed=seed)
        for seed in (1, 1, 2)
    )
    for a, b, c in zip(*(m.get_weights() for m in (first, second, third)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim < 2 or np.abs(a - c).max() > 0.01


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("clone", [False, True])
@pytest.mark.parametrize("stacked", [True, False])
def test_no_two_layers_share_weights(seed, clone, stacked):
    model = models.bsnn_mlp(
        4, 8, "gp_relu", input_shape=(8,), seed=seed, stacked=stacked
    )
    model = keras.models.clone_model(model) if clone else model
    weights = [w.reshape(-1, *w.shape[-2:]) for w in model.get_weights() if w.ndim > 1]
    kernels = [k for w in weights for k in w if k.shape == (8, 8)]
    assert len(kernels) == 5
    for i, kernel in enumerate(kernels):
        assert all(np.abs(kernel - other).max() > 0.01 for other in kernels[:i])


def test_a_shallow_network_needs_no_shaping():
    *_, stack, _ = models.bsnn_mlp(depth=1, units=8, activation="elu").layers
    activation = stack.block.activation
    assert activation.get_config()["function"]["config"] == "elu"
    assert type(activation) is GaussianPoincare


class Worst(keras.callbacks.Callback):
    """The largest orthogonality error after any step."""

    error = 0.0

    def on_train_batch_end(self, batch, logs=None):
        kernels = manifolds.constrained(self.model.trainable_variables)
        for kernel, manifold in kernels:
            self.error = max(self.error, float(keras.ops.max(manifold.error(kernel))))


@pytest.mark.slow
def test_it_learns_and_is_saved(tmp_path):
    x, y = data()
    model = compiled(models.bsnn_mlp(30, 32, "tanh", input_shape=(20,)), HAS_XLA)
    worst = Worst()
    callbacks = [worst, Retract()]
    history = model.fit(x, y, epochs=40, verbose=0, callbacks=callbacks).history["loss"]
    assert history[-1] < history[0] / 4
    assert 1e-6 < worst.error < 1e-4
    for layer in layers_of(model, OrthogonalDense):
        layer.assert_orthogonal(1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_array_equal(model(x), again(x))


@pytest.mark.parametrize("stacked", [True, False])
def test_the_gradient_is_tangent_or_not(stacked):
    for tangent in (True, False):
        model = models.bsnn_mlp(12, 8, stacked=stacked, tangent_gradient=tangent)
        blocks = [getattr(layer, "block", layer) for layer in model.layers]
        found = [b.tangent_gradient for b in blocks if isinstance(b, OrthogonalDense)]
        assert found == [tangent] * (1 if stacked else 12)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_stack_starts_from_normalized_features(scale):
    x, y = data()
    model = compiled(models.bsnn_mlp(20, 64, "relu", input_shape=(20,), seed=0))
    norms = diagnostics.signal_report(model, scale * x, y, training=False).trained()
    assert np.abs(norms.root_mean_square[1:-1] - 1).max() < 0.2
    assert_allclose(model(scale * x), model(x), atol=1e-3)


@pytest.mark.slow
def test_norms_stay_in_place_while_it_is_trained():
    x, _ = data(256)
    y = np.argmax(x[:, :10], axis=1)
    model = models.bsnn_mlp(50, 32, "relu", input_shape=(20,), seed=0)
    optimizer = StiefelMuon(0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=HAS_XLA)
    history = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0] / 2
    first = next(layer for layer in model.layers if layer.weights)
    columns = np.linalg.norm(keras.ops.convert_to_numpy(first.kernel), axis=0)
    np.testing.assert_allclose(columns, 0.5, atol=1e-4)
    norms = diagnostics.signal_report(model, x, y, training=False).trained()
    for curve in (norms.root_mean_square[1:-1], norms.gradient[1:-1]):
        assert max(curve) < 3 * min(curve)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "`depth`"),
        ({"depth": 2.0}, "`depth`"),
        ({"units": 0}, "`units`"),
        ({"activation": "nope"}, "nope"),
        ({"eta": 1.5}, "`eta`"),
        ({"retraction": "nope"}, "`retraction`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.bsnn_mlp(**{"depth": 12, "units": 4, **arguments})


class TestSyntheticExperiment:
    """The paper's experiment at width 128: 200 Haar layers, no training.

    What to expect of one sample at width d, with phi = `GaussianPoincare(f)`:

    Forward, let q be the mean square of the activations. A layer takes its deviation
    from 1 times V'(1) = s and adds an error of variance v = Var(phi(z)^2) / d. The
    deviation after many layers has the variance v / (1 - s^2).

    Backward, the squared norm is multiplied in each layer by a factor of mean 1 and
    variance w = Var(phi'(z)^2) / d: the logarithm of the norm of L layers has the
    deviation sqrt(L w) / 2, and the drift of the mean of a logarithm, -L w / 4. The
    deviation of q adds to it: to first order E[phi'(sqrt(q) z)^2] - 1 = (q - 1) c with
    c = E[z phi' phi''], constant as long as q is, and q forgets in 1 / (1 - s) layers:
    a deviation of at most |c| sqrt(L v) / (1 - s) / 2.

    Four deviations are allowed, for the largest of 200 layers: about one run of a
    hundred would leave them if all was normal. That is for one sample: the norms of a
    batch, which are measured, are means over samples and vary no more.
    """

    depth, width, samples = 200, 128, 64

    def norms(self, activation, seed):
        keras.utils.set_random_seed(seed)
        block = OrthogonalDense(self.width, activation=activation, use_bias=False)
        stack = DepthStack(block, self.depth)
        model = keras.Sequential([keras.Input((self.width,)), stack])
        # A linear loss: its gradient at the top is the random error of the paper.
        error = np.random.default_rng(seed).normal(size=(self.samples, self.width))
        model.compile(loss=lambda y, h: keras.ops.sum(y * h, axis=-1))
        x = np.random.default_rng(seed + 1).normal(size=error.shape)
        return diagnostics.signal_report(
            model, x.astype("float32"), error.astype("float32")
        )

    def bounds(self, phi):
        r = _integrals.resolved(phi)

        def mean(values):
            return float(np.sum(r.weights * values))

        v = (mean(r.values**4) - 1) / self.width
        w = (mean(r.derivative**4) - 1) / self.width
        s = gaussian.length_slope(phi)
        # By parts, E[z phi' phi''] = E[(z^2 - 1) phi'^2] / 2.
        c = mean((r.x**2 - 1) * r.derivative**2) / 2
        forward = 4 * np.sqrt(v / (1 - s**2))
        walk = w + (c / (1 - s)) ** 2 * v
        backward = 4 * np.sqrt(self.depth * walk) / 2 + self.depth * w / 4
        return forward, backward

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("name", ["tanh", "relu", "elu", "selu", "gelu"])
    def test_norms_stay_within_the_derived_factor(self, name, seed):
        phi = GaussianPoincare(name)
        norms, (forward, backward) = self.norms(phi, seed), self.bounds(phi)
        assert np.abs(norms.root_mean_square**2 - 1).max() < forward
        ratio = np.log(norms.gradient / norms.gradient[-1])
        assert np.abs(ratio).max() < backward

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
    def test_the_plain_function_does_not(self, name):
        forward, _ = self.bounds(GaussianPoincare(name))
        plain = self.norms(name, seed=0)
        assert np.abs(plain.root_mean_square**2 - 1).max() > forward
        assert plain.root_mean_square[-1] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("activation", [None, "sin", "relu", "gp_gelu"])
def test_batchnorm_mlp_trains_saves_and_reloads(activation, tmp_path):
    x, y = data(128)
    model = models.batchnorm_mlp(10, 16, activation, input_shape=(20,))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(StiefelMuon(0.1), loss, metrics=["accuracy"], jit_compile=IS_JAX)
    history = model.fit(x, y, batch_size=64, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_array_equal(model(x), again(x))
    for kernel, manifold in manifolds.constrained(again.trainable_variables):
        assert np.max(array(manifold.error(kernel))) < 1e-4
