"""What the tests of keras-hub's models share: tiny backbones, their data, training."""

import sys

import keras
import numpy as np
import pytest
from arrays import array
from backends import HAS_XLA
from scripts import ROOT

from keras_bsnn.layers import DepthStack
from keras_bsnn.stacking import unstack

pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed: pip install 'keras_bsnn[hub]'"
)
sys.path.append(str(ROOT / "examples"))
import _backbones

BACKBONES = list(_backbones.BACKBONES)
RATE = 0.1


def size(name):
    """Tiny; Gemma 3 has attention to all tokens in each sixth layer."""
    return _backbones.Size(layers=12 if name == "gemma3" else 4)


def backbone(name, **kwargs):
    keras.utils.set_random_seed(0)
    return _backbones.backbone(name, size(name), **kwargs)


def data(name, model):
    return _backbones.data(model, size(name))


def stacks(model):
    """The loops of a model and of the models within."""
    inner = [x for x in model.layers if isinstance(x, keras.Model)]
    own = [x for x in model.layers if isinstance(x, DepthStack)]
    return own + [stack for layer in inner for stack in stacks(layer)]


def assert_equal(ours, theirs, atol=1e-5):
    """Of two structures of tensors."""
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    for a, b in pairs:
        a, b = array(a), array(b)
        np.testing.assert_allclose(a, b, atol=atol, rtol=atol)
        assert np.isfinite(a).all() and np.abs(a).max() > 0


def values(model):
    return [array(w).copy() for w in model.trainable_weights]


def targets(model, x):
    """Random ones for the outputs of a model."""
    rng = np.random.default_rng(1)
    return keras.tree.map_structure(
        lambda y: rng.normal(size=y.shape).astype(keras.config.floatx()), model(x)
    )


def step(model, x, y):
    """The loss of a step of gradient descent."""
    if not model.compiled:
        model.compile(keras.optimizers.SGD(RATE), "mse", jit_compile=HAS_XLA)
    model.reset_metrics()  # else the loss is a mean over all steps
    return model.train_on_batch(x, y, return_dict=True)["loss"]


def assert_trains_equally(stacked, plain, x, atol):
    """Gradients in the first step, and losses in three, next to a copy of `plain`."""
    plain = unstack(stacked)
    y = targets(plain, x)
    before = values(plain)
    losses = [[step(model, x, y)] for model in (stacked, plain)]
    ours, theirs = values(unstack(stacked)), values(plain)
    for a, b, start in zip(ours, theirs, before, strict=True):
        np.testing.assert_allclose((a - start) / RATE, (b - start) / RATE, atol=atol)
    moved = [np.abs(b - start).max() for b, start in zip(theirs, before, strict=True)]
    assert np.mean(np.array(moved) > 0) > 0.8
    for model, found in zip((stacked, plain), losses, strict=True):
        found += [step(model, x, y) for _ in range(2)]
    np.testing.assert_allclose(*losses, rtol=atol)
    assert losses[0][2] < losses[0][0]
