import keras
import numpy as np
import pytest

from keras_bsnn import diagnostics, models
from keras_bsnn.activations import DepthShaped, GaussianPoincare
from keras_bsnn.layers import OrthogonalDense
from keras_bsnn.ops import gaussian


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


def hidden(model):
    return [layer for layer in model.layers if isinstance(layer, OrthogonalDense)]


def test_what_it_is_made_of():
    model = models.bsnn_mlp(depth=12, units=16, input_shape=(4, 4, 1))
    assert len(hidden(model)) == 12
    assert model.output_shape == (None, 10)
    activation = hidden(model)[0].activation
    assert isinstance(activation, DepthShaped)
    assert (activation.depth, activation.eta) == (12, 0.5)
    assert all(layer.activation is activation for layer in hidden(model))


def test_a_normalized_activation_is_used_as_it_is():
    model = models.bsnn_mlp(depth=2, units=8, activation="gp_tanh")
    assert isinstance(hidden(model)[0].activation, GaussianPoincare)
    own = GaussianPoincare("elu")
    assert hidden(models.bsnn_mlp(2, 8, own))[0].activation is own


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
def test_no_two_layers_share_weights(seed, clone):
    model = models.bsnn_mlp(4, 8, "gp_relu", input_shape=(8,), seed=seed)
    model = keras.models.clone_model(model) if clone else model
    kernels = [w for w in model.get_weights() if w.shape == (8, 8)]
    assert len(kernels) == 5
    for i, kernel in enumerate(kernels):
        assert all(np.abs(kernel - other).max() > 0.01 for other in kernels[:i])


def test_a_shallow_network_needs_no_shaping():
    activation = hidden(models.bsnn_mlp(depth=1, units=8, activation="tanh"))[
        0
    ].activation
    assert activation.get_config()["function"]["config"] == "tanh"
    assert type(activation) is GaussianPoincare


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_learns_and_is_saved(jit_compile, tmp_path):
    x, y = data()
    model = compiled(models.bsnn_mlp(30, 32, "tanh", input_shape=(20,)), jit_compile)
    history = model.fit(x, y, epochs=40, verbose=0).history["loss"]
    assert history[-1] < history[0] / 4
    for layer in hidden(model):
        layer.assert_orthogonal()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), again.predict(x, verbose=0)
    )


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
        models.bsnn_mlp(**{"depth": 5, "units": 4, **arguments})


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
        layers = [
            OrthogonalDense(self.width, activation=activation, use_bias=False)
            for _ in range(self.depth)
        ]
        model = keras.Sequential([keras.Input((self.width,)), *layers])
        # A linear loss: its gradient at the top is the random error of the paper.
        error = np.random.default_rng(seed).normal(size=(self.samples, self.width))
        model.compile(loss=lambda y, h: keras.ops.sum(y * h, axis=-1))
        x = np.random.default_rng(seed + 1).normal(size=error.shape)
        return diagnostics.signal_norms(
            model, x.astype("float32"), error.astype("float32")
        )

    def bounds(self, phi):
        r = gaussian._resolved(phi)

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

    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("name", ["tanh", "relu", "elu", "selu", "gelu"])
    def test_norms_stay_within_the_derived_factor(self, name, seed):
        phi = GaussianPoincare(name)
        norms, (forward, backward) = self.norms(phi, seed), self.bounds(phi)
        assert np.abs(norms.forward**2 - 1).max() < forward
        ratio = np.log(norms.gradient / norms.gradient[-1])
        assert np.abs(ratio).max() < backward

    @pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
    def test_the_plain_function_does_not(self, name):
        forward, _ = self.bounds(GaussianPoincare(name))
        plain = self.norms(name, seed=0)
        assert np.abs(plain.forward**2 - 1).max() > forward
        assert plain.forward[-1] < 0.1
