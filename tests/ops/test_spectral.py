import keras
import numpy as np
import pytest

from keras_bsnn.ops import spectral


def singular_values(matrix):
    matrix = np.asarray(keras.ops.convert_to_numpy(matrix), dtype="float64")
    return np.linalg.svd(matrix, compute_uv=False)


def with_singular_values(values, rows, seed=0):
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.normal(size=(rows, len(values))))[0]
    v = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return (u * values) @ v.T


@pytest.mark.parametrize(
    ("steps", "smallest"), [(2, 0.062), (3, 0.018), (4, 0.0052), (5, 0.0015)]
)
@pytest.mark.parametrize("rows", [6, 9])
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_singular_values_come_near_one(steps, smallest, rows, scale):
    """From a part of the eighth root of the sum of their eighth powers."""
    values = np.geomspace(smallest * 1.01, 0.9, 6)
    values[-1] = (1 - np.sum(values[:-1] ** 8)) ** (1 / 8)
    matrix = scale * with_singular_values(values, rows)
    for x in (matrix, matrix.T):
        found = singular_values(spectral.spectral_sign(x.astype("float32"), steps))
        assert min(found) > 0.68 and max(found) < 1.204


def test_singular_vectors_stay():
    matrix = with_singular_values([0.3, 0.5, 0.8], 5).astype("float32")
    product = np.asarray(spectral.spectral_sign(matrix)).T @ matrix
    assert np.allclose(product, product.T, atol=1e-6)
    assert np.all(np.linalg.eigvalsh(product) > 0)


def test_a_batch_is_treated_one_by_one():
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(3, 2, 4, 5)).astype("float32")
    batch *= np.array([1e-6, 1, 1e6], "float32")[:, None, None, None]
    together = np.asarray(spectral.spectral_sign(batch))
    for index in np.ndindex(3, 2):
        alone = np.asarray(spectral.spectral_sign(batch[index]))
        assert np.allclose(together[index], alone, atol=1e-5)


def test_skew_symmetric_stays_so_and_zero_stays_zero():
    x = np.random.default_rng(0).normal(size=(6, 6)).astype("float32")
    sign = np.asarray(spectral.spectral_sign(x - x.T))
    assert np.allclose(sign, -sign.T, atol=1e-5)
    assert not np.any(np.asarray(spectral.spectral_sign(np.zeros((3, 4), "float32"))))


def test_of_low_rank_the_operator_norm_is_bounded():
    x = np.outer(np.arange(1, 5), np.arange(1, 7)).astype("float32")
    assert max(singular_values(spectral.spectral_sign(x))) < 1.204
