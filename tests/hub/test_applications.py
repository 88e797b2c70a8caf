"""Models of keras.applications, which have equal blocks in part."""

import sys

import hub
import keras
import numpy as np
import pytest
from arrays import array
from hub import assert_equal, stacks

from keras_bsnn.stacking import stack_layers, unstack

pytestmark = pytest.mark.slow

SHAPE = (32, 32, 3)


def module_of(function):
    """Where the models of other sizes are that Keras has no public name for."""
    return sys.modules[function.__module__]


def convnext():
    """Whose drop path has a rate of its own in each block, and here none."""
    return module_of(keras.applications.ConvNeXtTiny).ConvNeXt(
        depths=[3, 2, 4, 2],
        projection_dims=[4, 8, 8, 16],
        drop_path_rate=0.0,
        weights=None,
        input_shape=SHAPE,
        classes=3,
        classifier_activation=None,
    )


def resnet():
    """The first block of a stage has a projection in its shortcut."""
    resnet = module_of(keras.applications.ResNet50)

    def blocks(x):
        stack = resnet.stack_residual_blocks_v1
        x = stack(x, 4, 4, stride1=1, name="first")
        return stack(x, 8, 3, name="second")

    return resnet.ResNet(
        blocks,
        preact=False,
        use_bias=True,
        weights=None,
        input_shape=SHAPE,
        classes=3,
        classifier_activation=None,
    )


def efficientnet():
    return module_of(keras.applications.EfficientNetB0).EfficientNet(
        0.25,
        1.0,
        32,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
        weights=None,
        input_shape=SHAPE,
        classes=3,
        classifier_activation=None,
    )


# The model, and how many equal blocks are in each of its loops.
MODELS = {
    "convnext": (convnext, [3, 2, 4, 2]),
    "resnet": (resnet, [3, 2]),
    "efficientnet": (efficientnet, [2, 2, 3]),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_does_what_it_did(name, in_float64):
    """Also to the moving statistics of batch normalization, in training.

    In float64: batch normalization of a few pixels makes much of what is rounded.
    """
    make, depths = MODELS[name]
    keras.utils.set_random_seed(0)
    plain = make()
    x = np.random.default_rng(0).normal(size=(4, *SHAPE))
    stacked = stack_layers(plain)
    assert [stack.depth for stack in stacks(stacked)] == depths, stacked.report
    assert_equal(stacked(x), plain(x), atol=1e-10)
    before = unstack(stacked)
    y = hub.targets(before, x)
    assert hub.step(stacked, x, y) == pytest.approx(hub.step(before, x, y), rel=1e-10)
    after = unstack(stacked)
    for ours, theirs in zip(after.weights, before.weights, strict=True):
        np.testing.assert_allclose(array(ours), array(theirs), atol=1e-8)
