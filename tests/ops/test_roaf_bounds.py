import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from keras_bsnn.ops import roaf


@given(
    st.floats(0, 1), st.floats(-2, 2), st.lists(st.floats(0, 3), min_size=1, max_size=6)
)
def test_bounds_hold_for_products(alpha, beta, norms):
    rng = np.random.default_rng(0)
    product = np.eye(4)
    for norm in norms:
        w = rng.normal(size=(4, 4))
        w *= norm / np.linalg.norm(w, 2)
        slopes = np.diag(rng.uniform(-1, 1, size=4))
        filter = ortho_group.rvs(4, random_state=rng)
        product = (alpha * filter + beta * slopes @ w) @ product
    found = np.linalg.svd(product, compute_uv=False)
    low, high = roaf.jacobian_bounds(alpha, 1.0, norms, len(norms), beta)
    assert low <= found[-1] + 1e-9 and found[0] <= high + 1e-9


def test_bounds_that_are_met():
    assert roaf.jacobian_bounds(0.9, 1.0, 1.0, 3) == pytest.approx((0.8**3, 1.0))
    assert roaf.jacobian_bounds(0.5, 1.0, 2.0, 3)[0] == 0


def test_bounds_without_end():
    c, reach = 1.0, 2.0
    found = roaf.jacobian_bounds(roaf.alpha_for_depth(10**6, c), 1.0, reach, 10**6)
    expected = np.exp(-c * (1 + reach)), np.exp(c * (reach - 1))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: roaf.alpha_for_depth(0), "`depth` must be an integer"),
        (lambda: roaf.alpha_for_depth(3, 4.0), "`c` must be in"),
        (lambda: roaf.jacobian_bounds(0.5, 1.0, [1.0, 2.0], 3), "`weight_norm` must"),
    ],
)
def test_wrong_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
