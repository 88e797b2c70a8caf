"""Of gaps, spectra and steps of bounded norm, for matrices that are drawn."""

import keras
import numpy as np
from draws import (
    WIDE,
    array,
    normal,
    orthogonal_matrix,
    property_of,
    rarely,
    scales,
    seeds,
    shapes,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from keras_bsnn.ops import isometry, spectral

wide = st.sampled_from(WIDE)


def turned(x, seed):
    """By an orthogonal matrix of the features, and of the samples."""
    left, right = (orthogonal_matrix((n, n), seed, x.dtype) for n in x.shape[-2:])
    return left @ x @ right


def spectrum(x):
    return np.linalg.svd(array(x), compute_uv=False)


@property_of(isometry.isometry_gap)
@given(shapes, wide, seeds, scales)
def test_the_gap_is_that_of_the_spectrum(shape, dtype, seed, scale):
    """Whatever the scale and the basis."""
    x = normal(shape, seed, dtype)
    squares = spectrum(x) ** 2
    assume(squares.min() > 1e-3 * squares.max())
    expected = np.log(squares.mean(-1)) - np.log(squares).mean(-1)
    found = isometry.isometry_gap(turned(np.asarray(scale, x.dtype) * x, seed))
    assert tuple(found.shape) == shape[:-2]
    np.testing.assert_allclose(array(found), expected, atol=1e-4, rtol=1e-3)


@property_of(isometry.isometry_gap, isometry.orthogonality_gap)
@given(shapes, wide, seeds, scales)
def test_orthogonal_samples_have_no_gap_and_repeated_ones_all(
    shape, dtype, seed, scale
):
    x = (scale * orthogonal_matrix(shape, seed)).astype(dtype)
    np.testing.assert_allclose(array(isometry.isometry_gap(x)), 0, atol=1e-6)
    np.testing.assert_allclose(array(isometry.orthogonality_gap(x)), 0, atol=1e-5)
    count = min(shape[-2:])
    if count > 1:
        x[..., :, :] = x[..., :1, :]
        assert np.all(np.isinf(array(isometry.isometry_gap(x))))
        found = array(isometry.orthogonality_gap(x))
        np.testing.assert_allclose(found, np.sqrt(1 - 1 / count), atol=1e-5)


@property_of(isometry.jacobian_singular_values)
@rarely
@given(st.sampled_from([(3, 3), (4, 3), (3, 5)]), seeds, st.booleans())
def test_the_jacobian_of_a_product_is_the_matrix(shape, seed, with_count):
    kernel = normal(shape, seed, "float32")
    expected = spectrum(kernel)
    count = min(shape) - 1 if with_count else None
    found = isometry.jacobian_singular_values(
        lambda x: keras.ops.matmul(x, kernel),
        normal((2, shape[0]), seed, "float32"),
        count,
    )
    assert found.shape == (2, count or min(shape))
    np.testing.assert_allclose(found, [expected[:count]] * 2, atol=1e-4)


@property_of(spectral.spectral_sign)
@given(shapes, wide, seeds, scales, st.integers(1, 6))
def test_the_spectral_sign_keeps_directions_and_bounds_sizes(
    shape, dtype, seed, scale, steps
):
    """`U f(S) V^T` with `f` odd and at most 1.203, whatever the scale and the basis."""
    x = normal(shape, seed, dtype)
    y = array(spectral.spectral_sign(x, steps))
    assert spectrum(y).max() < 1.204
    assert (array(x) * y).sum() > 0
    aligned = np.swapaxes(array(x), -1, -2) @ y
    np.testing.assert_allclose(aligned, np.swapaxes(aligned, -1, -2), atol=1e-3)
    other = spectral.spectral_sign(-turned(np.asarray(scale, x.dtype) * x, seed), steps)
    np.testing.assert_allclose(array(other), -turned(y, seed), atol=1e-2)


@property_of(spectral.spectral_sign)
@given(st.sampled_from([2, 4, 5]), seeds, st.integers(1, 6))
def test_of_a_skew_symmetric_matrix_it_is_one(size, seed, steps):
    x = normal((size, size), seed, "float32")
    y = array(spectral.spectral_sign(x - x.T, steps))
    np.testing.assert_allclose(y, -y.T, atol=1e-5)
