"""Backbones of keras-hub by name and size, from their configurations.

No weights are downloaded. All have dropout zero, so that two forms of one can be
compared.
"""

from typing import NamedTuple

import keras
import numpy as np


class Size(NamedTuple):
    """The size of a backbone.

    Attributes:
        layers: the number of its layers, of an encoder and of a decoder each.
        width: features of a token, a multiple of twice the heads.
        heads: of attention.
        length: tokens of a sequence; an image has about as many patches.
        vocabulary: different tokens.
    """

    layers: int = 4
    width: int = 16
    heads: int = 2
    length: int = 8
    vocabulary: int = 50

    @property
    def inner(self):
        """Features between the two dense layers of a block."""
        return 4 * self.width

    @property
    def image(self):
        """The side of an image of `length` patches, or a few less."""
        return PATCH * max(2, int(self.length**0.5))


PATCH = 4  # pixels, the side of a patch
MELS = 8  # features of sound


def _common(size):
    return {
        "vocabulary_size": size.vocabulary,
        "num_layers": size.layers,
        "hidden_dim": size.width,
        "intermediate_dim": size.inner,
    }


def _classic(size):
    return {**_common(size), "num_heads": size.heads, "dropout": 0.0}


def _with_positions(size):
    return {**_classic(size), "max_sequence_length": size.length}


def _albert(size):
    return {**_with_positions(size), "embedding_dim": size.width // 2}


def _modern(size):
    heads = {"num_query_heads": size.heads, "num_key_value_heads": size.heads}
    return {**_common(size), **heads}


def _mistral(size):
    return {**_modern(size), "sliding_window": size.length // 2}


def _with_head_size(size):
    return {**_modern(size), "head_dim": size.width // size.heads}


def _gemma(size):
    return {**_with_head_size(size), "num_key_value_heads": 1}


def _gemma2(size):
    return {
        **_gemma(size),
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "use_sliding_window_attention": True,
        "sliding_window_size": size.length // 2,
        "attention_logit_soft_cap": 50.0,
        "final_logit_soft_cap": 30.0,
    }


def _gemma3(size):
    window = {
        "use_sliding_window_attention": True,
        "sliding_window_size": size.length // 2,
    }
    return {**_gemma(size), **window, "image_size": size.image}


def _falcon(size):
    return {**_common(size), "num_attention_heads": size.heads}


def _whisper(size):
    return {
        **_classic(size),
        "num_mels": MELS,
        "max_encoder_sequence_length": 2 * size.length,  # it takes every second
        "max_decoder_sequence_length": size.length,
    }


def _image(size):
    return {
        "image_shape": (size.image, size.image, 3),
        "patch_size": PATCH,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "hidden_dim": size.width,
    }


def _vit(size):
    return {**_image(size), "mlp_dim": size.inner}


def _deit(size):
    return {**_image(size), "intermediate_dim": size.inner}


# The class of each, without "Backbone", and its arguments, of a size.
BACKBONES = {
    "bert": ("Bert", _with_positions),
    "roberta": ("Roberta", _with_positions),
    "distilbert": ("DistilBert", _with_positions),
    "albert": ("Albert", _albert),
    "gpt2": ("GPT2", _with_positions),
    "gptneox": ("GPTNeoX", _with_positions),
    "opt": ("OPT", _with_positions),
    "bloom": ("Bloom", _classic),
    "llama": ("Llama", _modern),
    "mistral": ("Mistral", _mistral),
    "gemma": ("Gemma", _gemma),
    "gemma2": ("Gemma", _gemma2),
    "gemma3": ("Gemma3", _gemma3),
    "phi3": ("Phi3", _modern),
    "qwen": ("Qwen", _modern),
    "qwen3": ("Qwen3", _with_head_size),
    "falcon": ("Falcon", _falcon),
    "t5": ("T5", _classic),
    "bart": ("Bart", _with_positions),
    "whisper": ("Whisper", _whisper),
    "vit": ("ViT", _vit),
    "deit": ("DeiT", _deit),
}


def backbone(name, size=None, **kwargs):
    """A new backbone.

    Args:
        name: one of `BACKBONES`.
        size: a `Size`. Defaults to a tiny one.
        **kwargs: further arguments of its class, such as `dtype`.

    Raises:
        ImportError: keras-hub is not installed.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            "The backbones are those of keras-hub: `pip install 'keras_bsnn[hub]'`."
        ) from error
    kind, arguments = BACKBONES[name]
    made = getattr(keras_hub.models, f"{kind}Backbone")
    return made(**{**arguments(size or Size()), **kwargs})


def data(model, size=None, batch=2, seed=0):
    """Inputs for a model of `BACKBONES`: tokens, images or sound; no two rows alike.

    The masks hide the last tokens of the first row.

    Returns:
        Arrays in the structure of `model.input`.
    """
    size, rng = size or Size(), np.random.default_rng(seed)

    def made(x):
        length = 2 * size.length if "features" in x.name else size.length
        free = iter((batch, length))
        shape = [next(free) if n is None else n for n in x.shape]
        if "mask" in x.name:
            mask = np.ones(shape)
            mask[0, -(size.length // 3) :] = 0
            return mask.astype(x.dtype)
        if "segment" in x.name:
            return rng.integers(2, size=shape).astype(x.dtype)
        if "ids" in x.name:
            return rng.integers(1, size.vocabulary, size=shape).astype(x.dtype)
        return rng.normal(size=shape).astype(x.dtype)

    return keras.tree.map_structure(made, model.input)
