"""Of the operator norm of many matrices, against all of their singular values."""

import ml_dtypes
import numpy as np
import pytest

from keras_bsnn.export import _operator_norm
from keras_bsnn.export._operator_norm import operator_norm

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


def of_values(values, rows=12, columns=9):
    """Matrices of given singular values."""
    values = np.asarray(values, "float64")
    u, v = (np.linalg.qr(normal(len(values), n, 9))[0] for n in (rows, columns))
    return (u * values[:, None, :]) @ v.swapaxes(1, 2)


KERNELS = {
    "tall": normal(40, 9, 4),
    "wide": normal(40, 4, 9),
    "one": normal(9, 4),
    "a column": normal(40, 5, 1),
    "a row": normal(40, 1, 5),
    "numbers": normal(40, 1, 1),
    "of many axes": normal(3, 4, 5, 6, 7),
    "large": normal(3, 300, 300),
    "zero": np.zeros((40, 9, 9)),
    "zero but one": np.eye(40)[:, :, None, None] * normal(9, 9),
    "of low rank": normal(40, 12, 2) @ normal(40, 2, 9),
    "orthogonal": np.linalg.qr(normal(40, 9, 9))[0].astype("float32"),
    "orthogonal and large": np.linalg.qr(normal(20, 200, 200))[0].astype("float32"),
    "identity": np.tile(np.eye(9), (40, 1, 1)),
    "clustered": of_values(1 + 1e-12 * normal(40, 9)),
    "clustered but one": of_values(np.where(np.eye(40, 9) > 0, 1 + 1e-10, 1)),
    "clustered below": of_values(np.where(np.eye(40, 9) > 0, 1, 1 - 1e-10)),
    "of many sizes": of_values(10.0 ** RNG.uniform(-12, 0, (40, 9))),
    "ascending": np.linspace(0.5, 2, 40)[:, None, None] * normal(9, 9),
    "alike": np.tile(normal(9, 9), (40, 1, 1)),
    "tiny": 1e-200 * normal(40, 9, 9),
    "huge": 1e200 * normal(40, 9, 9),
    "float32": 1e30 * normal(40, 9, 9).astype("float32"),
    "float16": 1e4 * normal(40, 9, 9).astype("float16"),
    "bfloat16": 1e30 * normal(40, 9, 9).astype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("piece", [1, 500, 2**18])
@pytest.mark.parametrize("name", KERNELS)
def test_it_is_the_largest_singular_value(name, piece, monkeypatch):
    """However many matrices are taken at once."""
    monkeypatch.setattr(_operator_norm, "PIECE", piece)
    kernel = KERNELS[name]
    expected = np.linalg.svd(kernel.astype("float64"), compute_uv=False).max()
    found = operator_norm(kernel)
    assert type(found) is float
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
