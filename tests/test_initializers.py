import itertools

import keras
import numpy as np
import pytest
from scipy import stats

from keras_bsnn.initializers import DeltaOrthogonal, HaarOrthogonal
from keras_bsnn.layers import DepthStack, OrthogonalDense
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
    kinds = (HaarOrthogonal, DeltaOrthogonal)
    seeds = (lambda: None, lambda: 7, lambda: keras.random.SeedGenerator(7))
    for kind, make_seed in itertools.product(kinds, seeds):
        made = kind(gain=0.5, seed=make_seed())
        config = keras.initializers.serialize(made)
        again = keras.initializers.deserialize(config)
        assert keras.initializers.serialize(again) == config
        if made.seed is not None:
            shape = (3, 3, 3)
            np.testing.assert_array_equal(again(shape), made(shape))


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


CONVOLUTIONS = [
    (keras.layers.Conv1D, {"kernel_size": 3}, (5, 4), 4),
    (keras.layers.Conv1D, {"kernel_size": 4}, (3, 4), 7),
    (keras.layers.Conv2D, {"kernel_size": (3, 2)}, (3, 4, 5), 3),
    (keras.layers.Conv2D, {"kernel_size": 3, "groups": 2}, (3, 2, 8), 6),
    (keras.layers.Conv3D, {"kernel_size": (2, 1, 3)}, (2, 3, 2, 2), 2),
]


@pytest.mark.parametrize(("kind", "arguments", "shape", "filters"), CONVOLUTIONS)
def test_delta_kernels_keep_lengths_of_any_image(kind, arguments, shape, filters):
    """Under zero padding too: what a convolution does to all pixels is orthogonal."""
    groups = arguments.get("groups", 1)
    initializer = DeltaOrthogonal(seed=1, groups=groups)
    layer = kind(filters, **arguments, padding="same", kernel_initializer=initializer)
    size = int(np.prod(shape))
    pixels = np.eye(size, dtype="float32").reshape(size, *shape)
    operator = keras.ops.convert_to_numpy(layer(pixels)).reshape(size, -1)
    singular_values = np.linalg.svd(operator, compute_uv=False)
    np.testing.assert_allclose(singular_values, 1, atol=1e-5)


def test_delta_kernels_of_stride():
    """A kernel sees one pixel in each of its steps, and drops the others."""
    initializer = DeltaOrthogonal(gain=2.0)
    layer = keras.layers.Conv2D(6, 3, 2, use_bias=False, kernel_initializer=initializer)
    x = np.random.default_rng(0).normal(size=(1, 7, 7, 4)).astype("float32")
    norms = np.linalg.norm(keras.ops.convert_to_numpy(layer(x)), axis=-1)
    seen = np.linalg.norm(x[:, 1::2, 1::2], axis=-1)
    np.testing.assert_allclose(norms, 2 * seen, rtol=1e-5)


def test_delta_kernels_of_a_stack_differ():
    block = keras.layers.Conv2D(
        4, 3, padding="same", kernel_initializer=DeltaOrthogonal(seed=1)
    )
    stack = DepthStack(block, 3)
    stack.build((None, 3, 3, 4))
    kernel = keras.ops.convert_to_numpy(stack.weights[0])
    assert kernel.shape == (3, 3, 3, 4, 4)
    centres = kernel[:, 1, 1]
    singular_values = np.linalg.svd(centres, compute_uv=False)
    np.testing.assert_allclose(singular_values, 1, atol=1e-5)
    assert np.abs(centres[0] - centres[1]).max() > 0.1
    assert np.count_nonzero(np.abs(kernel).max(axis=(0, 3, 4))) == 1


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (3, 4), r"`shape` must be of the form.*\(3, 4\)"),
        ({"groups": 2}, (3, 3, 4, 5), r"`shape`.*groups=2.*\(3, 3, 4, 5\)"),
        ({"groups": 0}, (3, 3, 4, 4), "`groups` must be an integer >= 1"),
        ({"gain": None}, (3, 3, 4, 4), "`gain`"),
        ({"seed": -1}, (3, 3, 4, 4), "`seed`"),
    ],
)
def test_kernels_without_a_delta(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        DeltaOrthogonal(**arguments)(shape)
