"""What a newcomer is told."""

import keras
import numpy as np
import pytest

import keras_bsnn
from keras_bsnn import activations, datasets, layers
from keras_bsnn.ops import gaussian


@pytest.mark.parametrize(
    ("written", "meant"),
    [("gp-tanh", "gp_tanh"), ("gp_tahn", "gp_tanh"), ("GELU", "gelu"), ("sine", "sin")],
)
def test_the_nearest_activation_is_suggested(written, meant):
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
        activations.get(written)


def test_the_nearest_data_set_is_suggested():
    with pytest.raises(ValueError, match="Did you mean 'mnist'"):
        datasets.load("MNIST")
    with pytest.raises(ValueError) as caught:
        datasets.load("something else")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["ROAF", "ROAFCell", "ROAFDense"])
def test_alpha_is_explained(name):
    with pytest.raises(ValueError, match=r"`alpha`.*1 / \(1 - alpha\).*alpha=None"):
        getattr(layers, name)(8)


def test_a_stack_says_what_it_holds():
    stacks = [layers.DepthStack(keras.layers.Dense(4), 77) for _ in range(2)]
    names = [stack.name for stack in stacks]
    assert names[0].startswith("depth_stack_77_dense") and names[0] != names[1]
    assert "depth=77, block=Dense" in repr(stacks[0])
    assert layers.DepthStack(keras.layers.Dense(4), 7, name="mine").name == "mine"


def test_warnings_have_a_class():
    with pytest.warns(keras_bsnn.KerasBSNNWarning, match="no stable"):
        gaussian.gp_constants(lambda x: x**3)


def test_affine_functions_of_any_slope_reach_no_correlation():
    for slope in (-1.0, -0.3, 2.0):
        epsilon = gaussian.shaping_epsilon(lambda x, a=slope: a * x + 0.1, 100, 0.5)
        assert np.isinf(epsilon)
