"""Of what additive filters guarantee, for networks that are drawn."""

import numpy as np
from draws import normal, orthogonal_matrix, property_of, rarely, seeds
from hypothesis import given
from hypothesis import strategies as st

from keras_bsnn import diagnostics, layers
from keras_bsnn.layers import _filters
from keras_bsnn.ops import roaf

filters = st.sampled_from([*_filters.FILTERS])


@property_of(roaf.alpha_for_depth)
@given(st.integers(1, 10**9), st.floats(0, 1))
def test_the_whole_network_contracts_by_a_factor(depth, share):
    c = share * min(depth, 20)
    alpha = roaf.alpha_for_depth(depth, c)
    assert 0 <= alpha <= 1
    assert alpha**depth <= np.exp(-c) * (1 + 1e-6)
    assert alpha**depth >= np.exp(-c) - c**2 / depth - 1e-6


@property_of(roaf.beta_of)
@given(st.floats(0, 1), st.none() | st.floats(-2, 2))
def test_beta_is_the_rest_unless_it_is_given(alpha, beta):
    found = roaf.beta_of(alpha, beta)
    assert found == beta or (beta is None and found + alpha == 1)


@property_of(roaf.jacobian_bounds)
@given(seeds, st.integers(1, 6), st.floats(0, 1), st.none() | st.floats(-1, 1))
def test_products_are_within_the_bounds(seed, depth, alpha, beta):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 5))
    kernels = normal((depth, size, size), seed)
    rotations = orthogonal_matrix((depth, size, size), seed + 1)
    slopes = rng.uniform(size=(depth, 1, size))
    scaled = roaf.beta_of(alpha, beta) * slopes * kernels
    product = np.linalg.multi_dot([*(alpha * rotations + scaled), np.eye(size)])
    norms = np.linalg.norm(kernels, 2, axis=(-2, -1))
    low, high = roaf.jacobian_bounds(alpha, 1.0, norms, depth, beta)
    found = np.linalg.svd(product, compute_uv=False)
    assert low * (1 - 1e-9) <= found.min() + 1e-12
    assert found.max() <= high * (1 + 1e-9)


@property_of(
    diagnostics.check_jacobian,
    diagnostics.jacobian_bounds,
    diagnostics.JacobianCheck,
)
@rarely
@given(seeds, filters, st.integers(1, 4), st.floats(0.5, 1))
def test_networks_are_within_the_bounds(seed, filter, depth, alpha):
    block = layers.ROAFDense(4, alpha, "tanh", filter, filter_seed=seed)
    stack = layers.DepthStack(block, depth)
    stack.build((None, 4))
    check = diagnostics.check_jacobian(stack, normal((2, 4), seed, "float32"))
    assert check.holds
    assert diagnostics.jacobian_bounds(stack) == (check.low, check.high)
