"""Of models whose equal layers became loops."""

import keras
import numpy as np
from draws import array, normal, property_of, rarely, seeds
from hypothesis import given
from hypothesis import strategies as st

from keras_bsnn import stacking

lengths = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@property_of(stacking.stack_layers, stacking.unstack, stacking.copy_state)
@rarely
@given(lengths, st.integers(2, 3), seeds)
def test_a_model_of_any_runs_is_the_same_in_loops_and_without(runs, least, seed):
    """Runs of tanh and of ReLU in turn."""
    x = inputs = keras.Input((4,))
    for i, length in enumerate(runs):
        for _ in range(length):
            x = keras.layers.Dense(4, "relu" if i % 2 else "tanh")(x)
    model = keras.Model(inputs, x)
    stacked = stacking.stack_layers(model, least)
    values = normal((3, 4), seed, "float32")
    expected = array(model(values))
    for other in (stacked, stacking.unstack(stacked)):
        np.testing.assert_allclose(array(other(values)), expected, atol=1e-5)
    zeroed = stacking.unstack(stacked)
    zeroed.set_weights([np.zeros(w.shape) for w in zeroed.weights])
    stacking.copy_state(stacked, zeroed)
    np.testing.assert_allclose(array(zeroed(values)), expected, atol=1e-5)
    stacking.copy_state(model, stacked)
    np.testing.assert_allclose(array(stacked(values)), expected, atol=1e-5)
    count = stacked.count_params()
    assert count == model.count_params()
    if max(runs) >= least:
        assert len(stacked.weights) < len(model.weights)
