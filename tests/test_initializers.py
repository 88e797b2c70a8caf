import keras
import numpy as np
import pytest
from scipy import stats

from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import OrthogonalDense
from keras_bsnn.ops import orthogonal

SAMPLES = 20_000


def draw(*shape, **arguments):
    return keras.ops.convert_to_numpy(HaarOrthogonal(**arguments)(shape))


@pytest.mark.parametrize("shape", [(8, 8), (30, 7), (7, 30), (5, 9, 4), (2, 3, 4, 9)])
def test_shapes(shape):
    w = draw(*shape, seed=1)
    assert w.shape == shape
    assert np.max(np.asarray(orthogonal.orthogonality_error(w))) < 1e-5


class TestHaarLaw:
    """Any single one of these fails for QR without the signs of R."""

    n = 3

    @pytest.fixture
    def matrices(self):
        return draw(SAMPLES, self.n, self.n, seed=0).astype("float64")

    @pytest.mark.parametrize("entry", [(0, 0), (0, 1), (2, 1), (2, 2)])
    def test_entries(self, matrices, entry):
        """An entry's square has the law Beta(1/2, (n - 1) / 2), its sign is fair."""
        x = matrices[:, entry[0], entry[1]]
        law = stats.beta(0.5, (self.n - 1) / 2)
        assert stats.kstest(x**2, law.cdf).pvalue > 1e-3
        assert abs(np.mean(x > 0) - 0.5) < 4 * 0.5 / np.sqrt(SAMPLES)

    def test_determinant_is_fair(self, matrices):
        share = np.mean(np.linalg.det(matrices) > 0)
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(SAMPLES)

    def test_moments_of_the_trace(self, matrices):
        """Diaconis and Shahshahani 1994: E tr Q = 0, E (tr Q)^2 = 1, E tr Q^2 = 1."""
        trace = np.trace(matrices, axis1=1, axis2=2)
        square = np.trace(matrices @ matrices, axis1=1, axis2=2)
        for values, expected in ((trace, 0), (trace**2, 1), (square, 1)):
            error = np.std(values) / np.sqrt(SAMPLES)
            assert abs(np.mean(values) - expected) < 4 * error

    def test_invariance(self, matrices):
        """A fixed rotation changes no law: here that of the trace."""
        rotation = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))[0]
        turned = np.trace(matrices[: SAMPLES // 2] @ rotation, axis1=1, axis2=2)
        straight = np.trace(matrices[SAMPLES // 2 :], axis1=1, axis2=2)
        assert stats.ks_2samp(turned, straight).pvalue > 1e-3


def test_matrices_of_a_batch_are_independent():
    w = draw(SAMPLES, 2, 3, 3, seed=0)
    product = np.mean(w[:, 0, 0, 0] * w[:, 1, 0, 0])
    assert abs(product) < 4 / 3 / np.sqrt(SAMPLES)


@pytest.mark.parametrize("shape", [(10, 4), (4, 10)])
def test_gain(shape):
    singular_values = np.linalg.svd(draw(*shape, gain=2.5), compute_uv=False)
    np.testing.assert_allclose(singular_values, 2.5, rtol=1e-5)


def test_two_default_layers_never_share_weights():
    layers = [OrthogonalDense(6) for _ in range(2)]
    shared = HaarOrthogonal()
    layers += [OrthogonalDense(6, kernel_initializer=shared) for _ in range(2)]
    for layer in layers:
        layer.build((None, 6))
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
    for i in range(4):
        for j in range(i):
            assert np.abs(kernels[i] - kernels[j]).max() > 0.1


def test_seeds():
    np.testing.assert_array_equal(draw(4, 4, seed=3), draw(4, 4, seed=3))
    assert np.abs(draw(4, 4, seed=3) - draw(4, 4, seed=4)).max() > 0.1
    seeds = HaarOrthogonal(seed=keras.random.SeedGenerator(3))
    assert np.abs(np.asarray(seeds((4, 4))) - np.asarray(seeds((4, 4)))).max() > 0.1
    keras.utils.set_random_seed(5)
    first = draw(4, 4)
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(draw(4, 4), first)


def test_config():
    for seed in (None, 7, keras.random.SeedGenerator(7)):
        made = HaarOrthogonal(gain=0.5, seed=seed)
        config = keras.initializers.serialize(made)
        again = keras.initializers.deserialize(config)
        assert keras.initializers.serialize(again) == config
        if seed is not None:
            np.testing.assert_array_equal(again((3, 3)), made((3, 3)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype(dtype):
    w = HaarOrthogonal()((16, 16), dtype=dtype)
    assert keras.backend.standardize_dtype(w.dtype) == dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"gain": "2"}, "`gain`"), ({"gain": None}, "`gain`"), ({"seed": 1.5}, "`seed`")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        HaarOrthogonal(**arguments)


def test_a_vector_has_no_orthogonal_matrix():
    with pytest.raises(ValueError, match=r"2 axes.*\(5,\)"):
        HaarOrthogonal()((5,))
