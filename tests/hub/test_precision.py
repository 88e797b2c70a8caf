"""Backbones with loops in other precisions than float32."""

import hub
import keras
import pytest
from hub import assert_equal, stacks
from keras import ops

from keras_bsnn.stacking import stack_layers

pytestmark = pytest.mark.slow

# keras-hub computes in float32 in their norms, and in the softmax of their attention.
# So does JAX in the softmax of Keras' own layer, which ViT has.
SINGLE = ("llama", "mistral", "gemma", "gemma2", "gemma3", "phi3", "qwen", "qwen3")
IS_JAX = keras.backend.backend() == "jax"
SINGLE += ("vit",) if IS_JAX else ()


@pytest.mark.parametrize("name", hub.BACKBONES)
def test_float64(name, in_float64):
    plain = hub.backbone(name)
    stacked, x = stack_layers(plain), hub.data(name, plain)
    assert all(w.dtype == "float64" for w in stacked.trainable_weights)
    atol = 1e-5 if name in SINGLE else 1e-10
    assert_equal(stacked(x), plain(x), atol=atol)
    if stacks(stacked):
        hub.assert_trains_equally(stacked, plain, x, atol=atol)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_bfloat16(name):
    """Within a few roundings, which are of 0.4%, and with weights in float32."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        plain = hub.backbone(name)
        stacked, x = stack_layers(plain), hub.data(name, plain)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {w.dtype for w in stacked.trainable_weights} == {"float32"}
    ours, theirs = (keras.tree.flatten(model(x)) for model in (stacked, plain))
    assert [y.dtype for y in ours] == [y.dtype for y in theirs]
    assert keras.backend.standardize_dtype(ours[0].dtype) == "bfloat16"
    ours, theirs = ([ops.cast(y, "float32") for y in found] for found in (ours, theirs))
    assert_equal(ours, theirs, atol=0.03)
    losses = [hub.step(stacked, x, hub.targets(stacked, x)) for _ in range(3)]
    assert losses[2] < losses[0]


@pytest.mark.skipif(IS_JAX, reason="JAX has no float64 unless one asks for it")
def test_a_policy_of_its_own():
    """One that is given to the backbone, and is not that of all other layers."""
    plain = hub.backbone("gpt2", dtype="float64")
    stacked, x = stack_layers(plain), hub.data("gpt2", plain)
    assert stacked(x).dtype == plain(x).dtype
    assert_equal(stacked(x), plain(x), atol=1e-10)
