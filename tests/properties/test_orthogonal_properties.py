"""Of retractions, the tangent space, and the errors, for matrices that are drawn."""

import keras
import numpy as np
from draws import (
    ROUNDING,
    WIDE,
    array,
    dtype_of,
    dtypes,
    error_of,
    normal,
    orthogonal_matrix,
    property_of,
    scales,
    seeds,
    shapes,
    sizes,
)
from hypothesis import example, given
from hypothesis import strategies as st

from keras_bsnn import _backend
from keras_bsnn.ops import orthogonal

TO_POLAR = [orthogonal.newton_schulz, orthogonal.cayley, orthogonal.polar]
retractions = st.sampled_from([*TO_POLAR, orthogonal.qr])
to_polar = st.sampled_from(TO_POLAR)
wide = st.sampled_from(WIDE)


def near(shape, seed, dtype="float32"):
    """Near orthogonal: a kernel after a step of an optimizer."""
    noise = normal(shape, seed + 1) / max(shape[-2:])
    kernel = orthogonal_matrix(shape, seed) + 0.005 * noise
    return kernel.astype(normal((), 0, dtype).dtype)


def permuted(x, seed):
    """Rows and columns in another order."""
    rng = np.random.default_rng(seed)
    rows, columns = (rng.permutation(n) for n in x.shape[-2:])
    return x[..., rows, :][..., columns]


@property_of(
    orthogonal.newton_schulz, orthogonal.cayley, orthogonal.polar, orthogonal.qr
)
@given(retractions, shapes, dtypes, seeds)
def test_retractions_give_orthogonal_matrices_and_leave_them(
    retraction, shape, dtype, seed
):
    once = retraction(near(shape, seed, dtype))
    assert tuple(once.shape) == shape and dtype_of(once) == dtype
    assert error_of(once) < ROUNDING[dtype]
    np.testing.assert_allclose(
        array(retraction(once)), array(once), atol=ROUNDING[dtype]
    )


@property_of(orthogonal.newton_schulz, orthogonal.cayley, orthogonal.polar)
@given(to_polar, shapes, wide, seeds)
def test_the_polar_factor_goes_with_permutations_and_transposes(
    retraction, shape, dtype, seed
):
    x = near(shape, seed, dtype)
    y = array(retraction(x))
    np.testing.assert_allclose(
        array(retraction(permuted(x, seed))), permuted(y, seed), atol=1e-5
    )
    np.testing.assert_allclose(
        array(retraction(np.swapaxes(x, -1, -2))), np.swapaxes(y, -1, -2), atol=1e-5
    )


@property_of(orthogonal.qr)
@given(shapes, wide, seeds, scales)
def test_qr_goes_with_permutations_of_the_longer_side(shape, dtype, seed, scale):
    """`Q(P X) = P Q(X)`, and the scale does not matter."""
    x = normal(shape, seed, dtype)
    order = np.random.default_rng(seed).permutation(max(shape[-2:]))
    axis = -2 if shape[-2] >= shape[-1] else -1
    expected = np.take(array(orthogonal.qr(x)), order, axis)
    found = orthogonal.qr(np.take(np.asarray(scale, x.dtype) * x, order, axis))
    if np.linalg.cond(x.astype("float64")).max() < 100:
        np.testing.assert_allclose(array(found), expected, atol=1e-4)
    assert error_of(found) < ROUNDING[dtype]


@property_of(
    orthogonal.newton_schulz, orthogonal.cayley, orthogonal.polar, orthogonal.qr
)
@given(retractions, shapes, seeds)
def test_leading_axes_are_a_batch(retraction, shape, seed):
    x = near((2, *shape), seed)
    np.testing.assert_allclose(
        array(retraction(x))[1], array(retraction(x[1])), atol=1e-6
    )


@property_of(orthogonal.polar)
@given(shapes, wide, seeds, scales)
@example((2, 2), "float32", 0, 1e30)
@example((2, 2), "float32", 0, 1e-30)
def test_polar_is_orthogonal_from_afar(shape, dtype, seed, scale):
    x = (scale * normal(shape, seed)).astype(dtype)
    assert error_of(orthogonal.polar(x)) < ROUNDING[dtype]


@property_of(orthogonal.orthogonality_error)
@given(shapes, wide, seeds, scales)
def test_the_error_of_a_multiple(shape, dtype, seed, scale):
    w = orthogonal_matrix(shape, seed, dtype)
    found = orthogonal.orthogonality_error(np.asarray(scale, w.dtype) * w)
    assert tuple(found.shape) == shape[:-2]
    np.testing.assert_allclose(
        array(found), abs(scale**2 - 1), rtol=1e-4, atol=1e-5 * max(1, scale**2)
    )


@property_of(orthogonal.project_tangent)
@given(shapes, wide, seeds)
def test_the_projection_is_tangent_idempotent_and_orthogonal(shape, dtype, seed):
    w, g = orthogonal_matrix(shape, seed, dtype), normal(shape, seed + 1, dtype)
    once = orthogonal.project_tangent(w, g)
    twice = orthogonal.project_tangent(w, once)
    w, g, once = map(array, (w, g, once))
    np.testing.assert_allclose(array(twice), once, atol=1e-5)
    tall = shape[-2] >= shape[-1]
    t, u = (x if tall else np.swapaxes(x, -1, -2) for x in (w, once))
    product = np.swapaxes(t, -1, -2) @ u
    np.testing.assert_allclose(product, -np.swapaxes(product, -1, -2), atol=1e-5)
    np.testing.assert_allclose((once * (g - once)).sum(), 0, atol=1e-4)


@property_of(orthogonal.tangent_gradient)
@given(sizes, sizes, wide, seeds)
def test_the_tangent_gradient_is_the_projected_one(samples, units, dtype, seed):
    w = orthogonal_matrix((units, units), seed, dtype)
    x, d = normal((2, samples, units), seed, dtype)
    found = orthogonal.tangent_gradient(x, x @ w, d @ w.T, d)
    expected = orthogonal.project_tangent(w, x.T @ d)
    np.testing.assert_allclose(array(found), array(expected), atol=1e-4)


@property_of(orthogonal.tangent_matmul)
@given(sizes, sizes, sizes, seeds)
def test_tangent_matmul_is_a_product_with_a_projected_gradient(m, n, samples, seed):
    w = keras.ops.convert_to_tensor(orthogonal_matrix((m, n), seed, "float32"))
    x = keras.ops.convert_to_tensor(normal((samples, m), seed, "float32"))

    def loss(product):
        return lambda w: keras.ops.sum(keras.ops.sin(product(x, w[0])))

    np.testing.assert_allclose(
        array(orthogonal.tangent_matmul(x, w)), array(x) @ array(w), atol=1e-5
    )
    (found,) = _backend.gradients(loss(orthogonal.tangent_matmul), [w])
    (plain,) = _backend.gradients(loss(keras.ops.matmul), [w])
    np.testing.assert_allclose(
        array(found), array(orthogonal.project_tangent(w, plain)), atol=1e-4
    )
