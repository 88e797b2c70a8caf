"""Language models that were trained with loops write what those without would."""

import hub
import keras
import keras_hub
import numpy as np
import pytest
from arrays import array
from backends import HAS_XLA

from keras_bsnn.stacking import stack_layers, unstack

pytestmark = pytest.mark.slow

IS_JAX = keras.backend.backend() == "jax"
PROMPT = 3  # tokens
MODELS = {
    "gpt2": keras_hub.models.GPT2CausalLM,
    "gemma": keras_hub.models.GemmaCausalLM,
}


def language_model(name):
    return MODELS[name](hub.backbone(name), preprocessor=None)


def trained(model, x):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=HAS_XLA)
    next_tokens = np.roll(x["token_ids"], -1, axis=1)
    steps = [model.train_on_batch(x, next_tokens, return_dict=True) for _ in range(2)]
    return [step["loss"] for step in steps]


def written(model, x):
    """Tokens that the model appends to prompts, with its cache."""
    model.compile(sampler="greedy", jit_compile=IS_JAX)  # XLA of TensorFlow is slow
    prompt = {key: value.copy() for key, value in x.items()}
    for value in prompt.values():
        value[:, PROMPT:] = 0
    return array(model.generate(prompt, stop_token_ids=None)["token_ids"])


@pytest.mark.parametrize("name", MODELS)
def test_it_generates_what_the_plain_model_does(name):
    plain = language_model(name)
    x = hub.data(name, plain.backbone)
    stacked = stack_layers(plain)
    before = unstack(stacked)
    assert len(hub.stacks(stacked)) == 1
    np.testing.assert_allclose(trained(stacked, x), trained(before, x), atol=1e-5)
    tokens = written(unstack(stacked), x)
    np.testing.assert_array_equal(tokens, written(before, x))
    np.testing.assert_array_equal(tokens[:, :PROMPT], x["token_ids"][:, :PROMPT])
    assert tokens.shape == x["token_ids"].shape and (tokens[:, PROMPT:] > 0).any()
