import keras
import numpy as np
import pytest
from arrays import array, assert_allclose
from backends import HAS_FLOAT64
from scipy import linalg

from keras_bsnn import _backend
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.ops import _matrix, orthogonal

SHAPES = [(8, 8), (20, 6), (6, 20), (3, 9, 5)]
TO_POLAR = [orthogonal.newton_schulz, orthogonal.cayley, orthogonal.polar]


def random_orthogonal(shape, seed=0):
    tall = (*shape[:-2], max(shape[-2:]), min(shape[-2:]))
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=tall))[0]
    return np.swapaxes(q, -1, -2) if shape[-2] < shape[-1] else q


def near_orthogonal(shape, size, seed=0):
    noise = np.random.default_rng(seed + 1).normal(size=shape) / np.sqrt(max(shape))
    return random_orthogonal(shape, seed) + size * noise


def polar_factor(matrix):
    if matrix.ndim == 2:
        return linalg.polar(matrix)[0]
    return np.stack([polar_factor(m) for m in matrix])


def error_of(matrix):
    """In float64, and independent of the code under test."""
    w = np.asarray(keras.ops.convert_to_numpy(matrix), dtype=np.float64)
    w = np.swapaxes(w, -1, -2) if w.shape[-2] < w.shape[-1] else w
    return np.abs(np.swapaxes(w, -1, -2) @ w - np.eye(w.shape[-1])).max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", TO_POLAR)
def test_polar_factor(function, shape):
    x = near_orthogonal(shape, 0.01).astype("float32")
    y = function(x)
    assert tuple(y.shape) == shape
    np.testing.assert_allclose(y, polar_factor(x.astype("float64")), atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_qr(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    q = keras.ops.convert_to_numpy(orthogonal.qr(x))
    assert error_of(q) < 1e-5
    tall = (np.swapaxes(m, -1, -2) if shape[-2] < shape[-1] else m for m in (q, x))
    q, x = tall
    r = np.swapaxes(q, -1, -2) @ x
    np.testing.assert_allclose(r, np.triu(r), atol=1e-5)
    assert np.all(np.diagonal(r, axis1=-2, axis2=-1) > 0)


def test_qr_takes_the_sign_of_zero_as_plus():
    assert np.all(np.isfinite(np.asarray(orthogonal.qr(np.zeros((3, 3), "float32")))))
    assert error_of(orthogonal.qr(np.zeros((3, 3), "float32"))) < 1e-6


@pytest.mark.parametrize("function", [*TO_POLAR, orthogonal.qr])
def test_orthogonal_matrices_stay(function):
    x = random_orthogonal((7, 7)).astype("float32")
    np.testing.assert_allclose(function(x), x, atol=1e-6)


def test_newton_schulz_squares_the_error():
    """The error e of the Gram matrix becomes about 3 e^2 / 4, as a spectral norm."""
    x = near_orthogonal((16, 16), 0.02).astype("float32")
    before, after = error_of(x), error_of(orthogonal.newton_schulz(x, steps=1))
    assert after < 16 * before**2
    assert error_of(orthogonal.newton_schulz(x, steps=3)) < 2e-6


def test_cayley_converges_from_afar():
    x = 30 * np.random.default_rng(0).normal(size=(6, 6)).astype("float32")
    assert error_of(orthogonal.cayley(x, steps=12)) < 5e-6


FAR = {
    "a large step": lambda q, g: q + 10 * np.sign(g),
    "a huge step": lambda q, g: q + 1e30 * g,
    "the largest floats": lambda q, g: 3e38 * np.sign(g),
    "a rank of one": lambda q, g: 1e10 * np.ones_like(q),
    "a low rank": lambda q, g: 1e6 * g[:, :2] @ g[:2],
    "a zero matrix": lambda q, g: 0 * q,
    "tiny entries": lambda q, g: 1e-30 * g,
    "equal columns": lambda q, g: np.repeat(q[:, :1], q.shape[1], axis=1),
    "a nilpotent shift": lambda q, g: np.eye(*q.shape, 1),
}


@pytest.mark.parametrize("shape", [(32, 32), (40, 12), (12, 40)])
@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize(
    "retraction", [orthogonal.newton_schulz, orthogonal.cayley, orthogonal.qr]
)
def test_a_step_of_any_size_ends_on_the_manifold(retraction, name, shape):
    q, g = random_orthogonal(shape), np.random.default_rng(3).normal(size=shape)
    x = np.asarray(FAR[name](q, g), dtype="float32")
    assert error_of(orthogonal.retract(x, retraction)) < 1e-5


@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0, 1e3, 1e6])
@pytest.mark.parametrize("retraction", ["newton_schulz", "cayley"])
def test_a_step_of_any_norm_ends_at_the_nearest_matrix(retraction, norm):
    """Where that is well determined: no singular value is far below the others."""
    q, random = random_orthogonal((32, 32)), np.random.default_rng(1)
    left, right = (np.linalg.qr(random.normal(size=(32, 32)))[0] for _ in range(2))
    x = q + left @ np.diag(norm * random.uniform(0.5, 1, 32)) @ right
    u, _, v = np.linalg.svd(x.astype("float32").astype("float64"))
    y = Orthogonal(retraction)(keras.ops.convert_to_tensor(x, "float32"))
    np.testing.assert_allclose(np.asarray(y), u @ v, atol=1e-5)


def test_only_the_bad_matrix_of_a_batch_is_moved():
    good = random_orthogonal((2, 8, 8)).astype("float32")
    batch = np.concatenate([good, np.full((1, 8, 8), 1e20, "float32")])
    y = orthogonal.retract(batch, orthogonal.newton_schulz)
    np.testing.assert_allclose(y[:2], good, atol=2e-6)
    assert error_of(y) < 1e-5


def test_inexact_products_do_not_keep_it_busy(monkeypatch):
    """As on a GPU that multiplies in TF32: the error never falls below 1e-4."""
    exact, calls = _matrix.gram, []

    def inexact(x):
        calls.append(1)
        return exact(x) + 1e-4

    monkeypatch.setattr(_matrix, "gram", inexact)
    x = near_orthogonal((8, 8), 0.01).astype("float32")
    y = orthogonal.retract(x, orthogonal.newton_schulz)
    assert error_of(y) < 1e-3
    assert len(calls) < 10


def test_a_retraction_that_changes_the_shape():
    with pytest.raises(ValueError, match=r"keep the shape.*\(4, 4\)"):
        orthogonal.retract(np.eye(4, dtype="float32"), lambda w: w[:2])


@pytest.mark.skipif(not HAS_FLOAT64, reason="Keras narrows float64")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", [*TO_POLAR, orthogonal.qr])
def test_float64(function, shape):
    x = near_orthogonal(shape, 1e-4)
    y = orthogonal.retract(function(x), function)
    assert y.dtype == "float64"
    assert error_of(y) < (1e-5 if function is orthogonal.polar else 1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize(
    "function",
    [
        orthogonal.newton_schulz,
        lambda x: orthogonal.retract(x, orthogonal.newton_schulz),
    ],
)
def test_the_dtype_is_kept_and_the_work_is_in_float32(function, dtype):
    x = keras.ops.cast(near_orthogonal((64, 64), 0.02), dtype)
    y = function(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    exact = polar_factor(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))
    rounding = {"float16": 5e-4, "bfloat16": 4e-3, "float32": 2e-6}[dtype]
    y = keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
    np.testing.assert_allclose(y, exact, atol=rounding)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonality_error(shape):
    x = near_orthogonal(shape, 0.1).astype("float32")
    found = orthogonal.orthogonality_error(x)
    assert tuple(found.shape) == shape[:-2]
    assert abs(np.max(np.asarray(found)) - error_of(x)) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_tangent_projection(shape):
    w = random_orthogonal(shape).astype("float32")
    g = np.random.default_rng(5).normal(size=shape).astype("float32")
    t = keras.ops.convert_to_numpy(orthogonal.project_tangent(w, g))
    np.testing.assert_allclose(orthogonal.project_tangent(w, t), t, atol=1e-5)
    assert np.abs(np.sum(t * (g - t))) < 1e-3, "the projection is not orthogonal"
    if shape[-2] < shape[-1]:
        w, t = np.swapaxes(w, -1, -2), np.swapaxes(t, -1, -2)
    product = np.swapaxes(w, -1, -2) @ t
    np.testing.assert_allclose(product, -np.swapaxes(product, -1, -2), atol=1e-5)


@pytest.mark.parametrize("function", [*TO_POLAR, orthogonal.qr])
def test_a_retraction_follows_the_tangent_to_second_order(function):
    w = random_orthogonal((10, 10))
    g = np.random.default_rng(7).normal(size=(10, 10))
    t = g - w @ (w.T @ g + g.T @ w) / 2
    t /= np.linalg.norm(t)
    steps = np.array([0.08, 0.04])
    errors = [
        np.linalg.norm(function((w + s * t).astype("float32")) - (w + s * t))
        for s in steps
    ]
    assert errors[0] / errors[1] > 3.5, "not of second order"
    assert errors[0] < steps[0] ** 2 * 2


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2"])
@pytest.mark.parametrize("function", [orthogonal.newton_schulz, orthogonal.cayley])
def test_bad_steps(function, steps):
    with pytest.raises(ValueError, match="`steps`"):
        function(np.eye(2, dtype="float32"), steps=steps)


@pytest.mark.parametrize(
    "function", [*TO_POLAR, orthogonal.qr, orthogonal.orthogonality_error]
)
def test_a_vector_is_no_matrix(function):
    with pytest.raises(ValueError, match=r"shape \(..., m, n\).*\(3,\)"):
        function(np.zeros(3, "float32"))


class TestTangentGradient:
    @pytest.mark.parametrize("shape", [(5, 5), (7, 4), (4, 7)])
    def test_it_is_the_projected_gradient(self, shape):
        rng = np.random.default_rng(0)
        kernel = keras.ops.convert_to_tensor(orthogonal.qr(rng.normal(size=shape)))
        kernel = keras.ops.cast(kernel, "float32")
        x = keras.ops.convert_to_tensor(
            rng.normal(size=(3, 2, shape[0])).astype("float32")
        )
        target = keras.ops.convert_to_tensor(
            rng.normal(size=(3, 2, shape[1])).astype("float32")
        )

        def loss(product):
            return lambda values: keras.ops.sum(target * product(*values) ** 3)

        plain = _backend.gradients(loss(keras.ops.matmul), [x, kernel])
        ours = _backend.gradients(loss(orthogonal.tangent_matmul), [x, kernel])
        assert_allclose(ours[0], plain[0], rtol=1e-4, atol=1e-4)
        expected = orthogonal.project_tangent(kernel, plain[1])
        assert_allclose(ours[1], expected, rtol=1e-4, atol=1e-4)
        assert np.abs(array(plain[1]) - array(expected)).max() > 0.1


class TestRetractWhereNeeded:
    def batch(self, errors, shape=(6, 6)):
        """Orthogonal matrices, each scaled so as to have a given error."""
        rng = np.random.default_rng(0)
        matrices = [
            np.sqrt(1 + error) * np.asarray(orthogonal.qr(rng.normal(size=shape)))
            for error in errors
        ]
        return np.stack(matrices).astype("float32")

    @pytest.mark.parametrize("shape", [(6, 6), (8, 5), (5, 8)])
    @pytest.mark.parametrize("tolerance", [1e-5, 1e-3])
    def test_only_those_above_the_tolerance(self, shape, tolerance):
        errors = np.array([0, 5e-6, 2e-4, 5e-4, 2e-3, 0.5, 0] * 6)
        before = self.batch(errors, shape)
        after = np.asarray(
            orthogonal.retract_where_needed(before, orthogonal.newton_schulz, tolerance)
        )
        needed = errors > tolerance
        for i in np.flatnonzero(~needed & (errors < tolerance / 3)):
            np.testing.assert_array_equal(after[i], before[i])
        found = np.asarray(orthogonal.orthogonality_error(after))
        assert found[needed].max() < 1e-5
        assert found.max() < tolerance

    def test_the_estimate_is_a_bound(self):
        """For errors of many patterns: one entry, a row, low rank, all entries."""
        rng = np.random.default_rng(0)
        n, bounds = 30, []
        for _ in range(300):
            u = rng.normal(size=(n, 1)) * (rng.random((n, 1)) < rng.random())
            dense = rng.normal(size=(n, n)) * (rng.random((n, n)) < rng.random())
            direction = u @ u.T if rng.random() < 0.5 else dense + dense.T
            direction /= np.abs(direction).max() + 1e-30
            matrix = np.asarray(orthogonal.qr(rng.normal(size=(n, n))))
            matrix = matrix @ (np.eye(n) + 1e-2 * direction)
            exact = float(orthogonal.orthogonality_error(matrix))
            estimate = orthogonal.estimated_error(matrix.astype("float32")[None])
            bounds.append(float(estimate[0]) / exact if exact > 1e-5 else 1.0)
        assert min(bounds) > 0.6  # by chance: twice the tolerance is never exceeded
        assert np.mean(np.array(bounds) < 1) < 0.2

    def test_what_is_not_finite(self):
        before = self.batch([0.0, 0.0, 0.0])
        before[1, 0, 0] = np.nan
        after = np.asarray(
            orthogonal.retract_where_needed(before, orthogonal.newton_schulz, 1e-4)
        )
        np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
        assert float(orthogonal.orthogonality_error(after[1])) < 1e-5


def test_a_matrix_ends_alike_in_a_batch_and_alone():
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(4, 5, 5)).astype("float32") * [
        [[1e-3]],
        [[1]],
        [[9]],
        [[3]],
    ]
    batch[3] = np.eye(5)
    together = np.asarray(orthogonal.polar(batch))
    for matrix, expected in zip(batch, together, strict=True):
        np.testing.assert_allclose(orthogonal.polar(matrix), expected, atol=1e-6)
