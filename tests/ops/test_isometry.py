"""The gap, and the theory of batch normalization on orthogonal weights."""

import math

import keras
import numpy as np
import pytest
from arrays import array
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from keras_bsnn import _backend
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import BatchNormDense, DepthStack, OrthogonalDense
from keras_bsnn.ops import isometry


def gap(x, dtype="float64"):
    with _backend.float64():
        return np.asarray(isometry.isometry_gap(np.asarray(x, dtype)))


def isometry_of(x):
    return np.exp(-gap(x))


def haar(shape, seed):
    with _backend.float64():
        return np.asarray(HaarOrthogonal(seed=seed)(shape, dtype="float64"))


def normalized(x):
    """Rows are features: `(..., features, samples)`, as in the paper."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("entry", [np.nan, np.inf])
def test_what_is_not_finite_has_no_gap(entry):
    x = np.stack([np.eye(3), np.eye(3)])
    x[0, 1, 2] = entry
    np.testing.assert_array_equal(gap(x), [np.nan, 0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=12), st.integers(0, 99))
def test_it_is_what_the_paper_defines(singular_values, seed):
    s = np.array(singular_values)
    left, right = ortho_group.rvs(len(s), size=2, random_state=seed)
    x = left * s @ right
    eigenvalues = s**2
    expected = np.log(eigenvalues.mean()) - np.log(eigenvalues).mean()
    assert gap(x) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert gap(x.T) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert gap(1e-3 * x) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("dtype", "deviation", "tolerance"),
    [("float64", 1e-6, 1e-3), ("float64", 1e-2, 1e-6), ("float32", 1e-3, 1e-2)],
)
def test_it_is_accurate_near_isometry(dtype, deviation, tolerance):
    """The gap of singular values exp(e) is 2 var(e), to second order."""
    e = deviation * np.cos(np.arange(20) * math.pi / 10)
    x = ortho_group.rvs(20, random_state=0) * np.exp(e)
    logarithms = 2 * e
    expected = np.log(np.mean(np.exp(logarithms - logarithms.mean())))
    assert gap(x, dtype) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((3, 3)),
        np.ones((4, 4)),
        np.vander([1.0, 2, 2], 3),
        np.eye(3)[:, :2].T @ np.diag([1, 0, 1.0]),
    ],
)
def test_dependent_samples_are_infinitely_far(x, dtype):
    assert gap(x, dtype) == np.inf
    assert np.all(np.isfinite(np.asarray(isometry.orthogonality_gap(x + 1e-9))))


def test_of_a_batch_of_batches():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    x[1, 2] = 1
    found = gap(x)
    assert found.shape == (2, 3)
    assert found[1, 2] == np.inf and found[0, 1] == pytest.approx(gap(x[0, 1]))


def test_the_orthogonality_gap():
    assert float(isometry.orthogonality_gap(2 * np.eye(3))) == pytest.approx(
        0, abs=1e-7
    )
    gram = np.diag([4.0, 1, 1]) / 6
    expected = np.linalg.norm(gram - np.eye(3) / 3)
    found = isometry.orthogonality_gap(np.diag([2.0, 1, 1]))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("d", [16, 50, 100])
def test_the_gap_of_a_network_decays_by_its_sharp_rate(d):
    """By d / (d + 2) per layer; 20 seeds, in the layer itself."""
    shrunk, depth = [], 60
    block = BatchNormDense(d, center=False, scale_by="norm", epsilon=0)
    layers = DepthStack(block, depth, return_sequences=True)
    layers.build((d, d))
    for seed in range(20):
        x = haar((d, d), seed) * np.exp(0.2 * np.cos(np.arange(d)))
        layers.weights[0].assign(haar((depth, d, d), 100 + seed))
        outputs = array(layers(x.astype("float32"), training=True))
        gaps = gap(np.swapaxes(outputs, 0, 1))
        assert gaps[-1] < gaps[0]
        shrunk.append(1 - gaps[1:] / gaps[:-1])
    assert np.mean(shrunk) == pytest.approx(2 / (d + 2), rel=0.05)


def random_batches(count, d, seed):
    """Of every shape of spectrum, from near isometry to near collinear."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, d, d))
    spread = 10 ** rng.uniform(-2, 1, size=(count, 1, 1))
    scales = np.exp(spread * rng.normal(size=(count, d, 1)))
    common = 10 ** rng.uniform(-2, 1, size=(count, 1, 1)) * rng.normal(
        size=(count, 1, d)
    )
    return normalized(scales * x + common)


@pytest.mark.parametrize("d", [2, 3, 5, 10])
def test_normalization_brings_closer_to_isometry(d):
    """By the factor 1 + var / mean^2 of the norms of the rows: 2,000 cases in all."""
    x = np.random.default_rng(d).lognormal(sigma=2, size=(500, d, 1)) * random_batches(
        500, d, d
    )
    norms = np.linalg.norm(x, axis=-1)
    factor = 1 + norms.var(axis=-1) / norms.mean(axis=-1) ** 2
    assert np.all(isometry_of(normalized(x)) >= factor * isometry_of(x) * (1 - 1e-9))


@pytest.mark.parametrize("d", [2, 3, 5, 10])
def test_theorem_3(d):
    """2,000 batches in all; the mean of 100 matrices, less 4 standard errors."""
    x = random_batches(500, d, d)
    w = haar((100, 1, d, d), d)
    after = isometry_of(normalized(w @ x))
    mean, error = after.mean(axis=0), after.std(axis=0, ddof=1) / math.sqrt(len(w))
    eigenvalues = np.linalg.svd(x, compute_uv=False) ** 2
    deviation = np.square(eigenvalues - 1).sum(axis=-1) / (2 * d**2 * (d + 2))
    bound = isometry_of(x) / (1 - deviation)
    assert np.all(mean + 4 * error >= bound)
    assert np.mean(mean > bound) > 0.9


@pytest.mark.parametrize("d", [3, 8])
def test_the_moments_of_haar_matrices(d):
    """Weingarten's, within 3 standard errors."""
    w = haar((100_000, d, d), 1)
    expected = {
        "ij": (w[:, 0, 0] ** 2, 1 / d),
        "ij, ij": (w[:, 0, 0] ** 4, 3 / (d * (d + 2))),
        "ij, ik": (w[:, 0, 0] ** 2 * w[:, 0, 1] ** 2, 1 / (d * (d + 2))),
        "ij, kl": (
            w[:, 0, 0] ** 2 * w[:, 1, 1] ** 2,
            (d + 1) / (d * (d - 1) * (d + 2)),
        ),
        "cycle": (
            w[:, 0, 0] * w[:, 0, 1] * w[:, 1, 0] * w[:, 1, 1],
            -1 / (d * (d - 1) * (d + 2)),
        ),
    }
    for values, moment in expected.values():
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - moment) < 3 * error


def model(*layers):
    return keras.Sequential([keras.Input((12,)), *layers])


MODELS = {
    "dense": lambda: model(keras.layers.Dense(7)),
    "tanh": lambda: model(keras.layers.Dense(9, "tanh"), keras.layers.Dense(14)),
    "stack": lambda: model(DepthStack(OrthogonalDense(12, "gp_tanh"), 6)),
    "batch normalization": lambda: model(DepthStack(BatchNormDense(12, "tanh"), 6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_singular_values_of_jacobians(name):
    """As of finite differences; and the largest, without the matrix."""
    x = np.random.default_rng(0).normal(size=(2, 12)).astype("float32")
    network = MODELS[name]()
    found = isometry.jacobian_singular_values(network, x)
    step = 1e-3
    for sample, values in zip(x, found, strict=True):
        ahead, behind = (
            network.predict(sample + h * np.eye(12), verbose=0) for h in (step, -step)
        )
        expected = np.linalg.svd((ahead - behind) / (2 * step), compute_uv=False)
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-3)
    largest = isometry.jacobian_singular_values(network, x, count=3)
    np.testing.assert_allclose(largest, found[:, :3], rtol=1e-5)


def test_singular_values_of_an_orthogonal_network_are_one():
    layers = [DepthStack(OrthogonalDense(12), 1000), OrthogonalDense(20)]
    x = np.ones((3, 12), "float32")
    found = isometry.jacobian_singular_values(model(*layers), x)
    np.testing.assert_allclose(found, 1, atol=2e-5)


def test_singular_values_of_a_map_that_loses_rank():
    projected = isometry.jacobian_singular_values(
        lambda x: keras.ops.multiply(x, np.array([1.0, 1, 0], "float32")),
        np.ones((1, 3), "float32"),
    )
    np.testing.assert_array_equal(projected, [[1, 1, 0]])
    assert gap(np.diag(projected[0])) == np.inf


def test_a_wrong_count():
    with pytest.raises(ValueError, match="`count` must be at least 1 and less than 7"):
        isometry.jacobian_singular_values(MODELS["dense"](), np.ones((1, 12)), count=7)
