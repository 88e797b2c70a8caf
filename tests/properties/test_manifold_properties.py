"""Of manifolds, for axes and shapes that are drawn."""

import numpy as np
from draws import array, normal, property_of, rarely, seeds
from hypothesis import given
from hypothesis import strategies as st

from keras_bsnn import constraints, layers, manifolds

orders = st.permutations([-4, -3, -2, -1])
splits = st.tuples(st.integers(1, 2), st.integers(1, 2))
sizes = st.tuples(*[st.integers(1, 3)] * 4)


@property_of(manifolds.Stiefel)
@given(orders, splits, sizes, seeds)
def test_a_weight_is_its_matrices(order, split, shape, seed):
    rows, columns = order[: split[0]], order[split[0] : sum(split)]
    manifold = manifolds.Stiefel(rows, columns)
    w = normal(shape, seed)
    matrices = manifold.matrices(w)
    assert matrices.shape[-2:] == tuple(
        np.prod([shape[a] for a in axes]) for axes in (rows, columns)
    )
    assert manifold.count(shape) * np.prod(matrices.shape[-2:]) == w.size
    np.testing.assert_array_equal(manifold.from_matrices(matrices, shape), w)
    # A further axis in front is one more of the batch.
    both = manifold.matrices(np.stack([w, 2 * w]))
    np.testing.assert_array_equal(both, np.stack([matrices, 2 * matrices]))
    assert manifolds.Stiefel(**manifold.to_dict()) == manifold


@property_of(manifolds.of, manifolds.constrained, manifolds.stacked_axes)
@rarely
@given(st.integers(0, 2), st.integers(1, 3), st.booleans())
def test_roles_of_the_weights_of_stacks(levels, depth, is_orthogonal):
    block = layers.OrthogonalDense(
        2, kernel_constraint=constraints.Orthogonal() if is_orthogonal else None
    )
    for _ in range(levels):
        block = layers.DepthStack(block, depth)
    block.build((None, 2))
    assert all(manifolds.stacked_axes(v) == levels for v in block.weights)
    kernel, bias = block.trainable_variables
    expected = [(kernel, manifolds.Stiefel())] if is_orthogonal else []
    found = list(manifolds.constrained(block.trainable_variables))
    assert [(id(v), m) for v, m in found] == [(id(v), m) for v, m in expected]
    assert manifolds.of(bias) is None
    for variable, manifold in found:
        assert manifold.count(variable.shape) == depth**levels
        assert array(manifold.error(variable)).shape == (depth,) * levels
