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


# The model, how many equal blocks are in each of its loops, and how exact it is. Batch
# normalization of a few pixels makes much of what is rounded; a layer of ConvNeXt
# computes in float32, so that its loops would end where not all does.
MODELS = {
    "convnext": (convnext, [3, 2, 4, 2], 1e-5),
    "resnet": (resnet, [3, 2], 1e-10),
    "efficientnet": (efficientnet, [2, 2, 3], 1e-10),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_does_what_it_did(name, request):
    """Also to the moving statistics of batch normalization, in training."""
    make, depths, atol = MODELS[name]
    if atol < 1e-5:
        request.getfixturevalue("in_float64")
    keras.utils.set_random_seed(0)
    plain = make()
    x = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(keras.config.floatx())
    stacked = stack_layers(plain)
    assert [stack.depth for stack in stacks(stacked)] == depths, stacked.report
    assert_equal(stacked(x), plain(x), atol=atol)
    before = unstack(stacked)
    y = hub.targets(before, x)
    assert hub.step(stacked, x, y) == pytest.approx(hub.step(before, x, y), rel=atol)
    after = unstack(stacked)
    for ours, theirs in zip(after.weights, before.weights, strict=True):
        np.testing.assert_allclose(array(ours), array(theirs), atol=100 * atol)
