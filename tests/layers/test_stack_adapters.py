"""Adapters of low rank, and quantization, of stacks and of layers that are stacked."""

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from backends import HAS_XLA
from keras import ops
from versions import not_on_keras_3_10

from keras_bsnn import export
from keras_bsnn.layers import DepthStack, OrthogonalDense

DEPTH, UNITS = 3, 4
ADAPTED = [
    ("einsum_dense_bias", True),
    ("einsum_dense_lora_kernel_a", True),
    ("einsum_dense_lora_kernel_b", True),
    ("mix_bias", True),
    ("mix_lora_kernel_a", True),
    ("mix_lora_kernel_b", True),
    ("einsum_dense_kernel", False),
    ("mix_kernel", False),
]


@keras.saving.register_keras_serializable("tests")
class Mixes(keras.layers.Layer):
    """A layer whose configuration does not know what is done to those in it."""

    def build(self, input_shape):
        self.heads = keras.layers.EinsumDense(
            "ab,bcd->acd", (2, 3), bias_axes="cd", name="einsum_dense"
        )
        self.heads.build(input_shape)
        self.mix = keras.layers.Dense(input_shape[-1], name="mix")
        self.mix.build((None, 6))

    def call(self, x):
        return x + self.mix(ops.reshape(ops.tanh(self.heads(x)), (-1, 6)))


def mixes():
    made = [Mixes() for _ in range(DEPTH)]
    for layer in made:
        layer.build((None, UNITS))
    return made


def adapted():
    """Layers with adapters that are not zero."""
    layers = mixes()
    for seed, layer in enumerate(layers):
        layer.heads.enable_lora(2, lora_alpha=3.0)
        layer.mix.enable_lora(1)
        for inner in (layer.heads, layer.mix):
            inner.lora_kernel_b.assign(drawn(*inner.lora_kernel_b.shape, seed=seed))
    return layers


def copies(layers):
    """As the first of those that are stacked is the block of the stack."""
    made = adapted()
    for ours, theirs in zip(made, layers, strict=True):
        ours.set_weights(theirs.get_weights())
    return made


def compiled(layers, jit_compile=HAS_XLA):
    model = keras.Sequential([keras.Input((UNITS,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    return model


def through(stack, x):
    """What the layers of a stack make of an input one by one."""
    for i in range(stack.depth):
        x = stack.layer_at(i)(x)
    return x


def check_kernels_stay(stack, before):
    for variable, value in zip(stack.weights, before, strict=True):
        moved = np.any(array(variable) != value, axis=(*range(1, value.ndim),))
        is_kernel = variable.name.endswith("kernel")
        assert variable.trainable != is_kernel
        assert not moved.any() if is_kernel else moved.all()


def check_saved(model, x, folder):
    expected = model.predict(x, verbose=0)
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    assert_allclose(through(loaded.layers[-1], x), expected, atol=1e-5)
    loaded.train_on_batch(x, x)


def test_layers_with_adapters_are_stacked(tmp_path):
    """They compute the same before and after steps, and once they are saved."""
    layers, x = adapted(), drawn(8, UNITS)
    chain = compiled(copies(layers))
    stack = DepthStack.from_layers(layers)
    names = [(v.name.split("_", 1)[1], v.trainable) for v in stack.weights]
    assert names == ADAPTED or [(v.name, v.trainable) for v in stack.weights] == ADAPTED
    before = [array(v) for v in stack.weights]
    stacked = compiled([stack])
    for _ in range(3):
        predictions = [model.predict(x, verbose=0) for model in (stacked, chain)]
        np.testing.assert_allclose(*predictions, atol=1e-5)
        losses = [model.train_on_batch(x, x + 1) for model in (stacked, chain)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    check_kernels_stay(stack, before)
    check_saved(stacked, x, tmp_path)


@pytest.mark.parametrize("has_layers", [False, True])
def test_a_stack_is_given_adapters(has_layers, tmp_path):
    x = drawn(8, UNITS)
    stack = DepthStack.from_layers(mixes()) if has_layers else DepthStack(Mixes(), 3)
    expected, count = array(stack(x)), stack.count_params()
    stack.enable_lora(2, lora_alpha=3.0)
    assert_allclose(stack(x), expected, atol=1e-6)  # as the second matrix is zero
    added = sum(np.prod(v.shape) for v in stack.weights if "lora" in v.name)
    assert stack.count_params() - count == added > 0
    starts = [array(v) for v in stack.weights if v.name.endswith("lora_kernel_a")]
    assert len(starts) == 2 and all(np.any(a[0] != a[1]) for a in starts)
    before, model = [array(v) for v in stack.weights], compiled([stack])
    for _ in range(2):  # the first matrix moves once the second is not zero
        model.train_on_batch(x, x + 1)
    check_kernels_stay(stack, before)
    assert_allclose(through(stack, x), stack(x), atol=1e-5)
    assert stack.layer_at(0).mix.lora_alpha == 3.0
    check_saved(model, x, tmp_path)


def test_plain_keras_has_the_products_in_its_kernels():
    layers, x = [keras.layers.Dense(UNITS, "tanh") for _ in range(DEPTH)], drawn(2, 4)
    for seed, layer in enumerate(layers):
        layer.build((None, UNITS))
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(drawn(2, UNITS, seed=seed))
    model = compiled([DepthStack.from_layers(layers)])
    plain = export.to_keras(model)
    assert plain.count_params() == DEPTH * UNITS * (UNITS + 1)
    assert_allclose(plain(x), model(x), atol=1e-5)


def test_layers_by_their_names():
    stack = DepthStack(Mixes(), DEPTH)
    stack.build((None, UNITS))
    stack.enable_lora(1, target_layer_names=["mix"])
    found = [v.name for v in stack.weights if "lora" in v.name]
    assert found == ["mix_lora_kernel_a", "mix_lora_kernel_b"]
    with pytest.raises(ValueError, match=r"`target_layer_names`.*Did you mean 'mix'"):
        stack.enable_lora(1, target_layer_names=["mixx"])
    with pytest.raises(ValueError, match="not for 'mix', which has an adapter"):
        stack.enable_lora(1)
    assert stack(drawn(2, UNITS)).shape == (2, UNITS)


def test_blocks_without_kernels_to_adapt():
    with pytest.raises(ValueError, match="not built"):
        DepthStack(Mixes(), DEPTH).enable_lora(1)
    for block, message in (
        (OrthogonalDense(UNITS), "'orthogonal_dense.* has none"),
        (keras.layers.Dense(UNITS, kernel_constraint="max_norm"), "has a constraint"),
    ):
        stack = DepthStack(block, DEPTH)
        stack.build((None, UNITS))
        with pytest.raises(ValueError, match=message):
            stack.enable_lora(1)


def with_dense():
    layers = DepthStack(Mixes(), DEPTH), keras.layers.Dense(UNITS)
    return keras.Sequential([keras.Input((UNITS,)), *layers])


def test_a_stack_cannot_be_quantized():
    """Nor a model with it."""
    model = with_dense()
    for refused in (model.layers[0].quantize, model.quantize):
        with pytest.raises(ValueError, match=r"stack 'depth_stack_3_mixes.*to_keras"):
            refused("int8")


@not_on_keras_3_10("has no filters of layers")
def test_a_stack_may_be_left_as_it_is():
    model, x = with_dense(), drawn(2, UNITS)
    expected = model(x)
    model.quantize("int8", filters=lambda layer: not isinstance(layer, DepthStack))
    assert model.layers[1].quantization_mode == "int8"
    assert_allclose(model(x), expected, atol=0.1)


@pytest.mark.parametrize(
    "mode",
    ["int8", pytest.param("int4", marks=not_on_keras_3_10("has no int4"))],
)
def test_layers_that_are_quantized_are_stacked(mode, tmp_path):
    layers, x = [keras.layers.Dense(UNITS) for _ in range(DEPTH)], drawn(8, UNITS)
    expected = x
    for layer in layers:
        layer.build((None, UNITS))
        layer.quantize(mode)
        expected = layer(expected)
    stack = DepthStack.from_layers(layers)
    kernel = next(v for v in stack.weights if v.name.endswith("kernel"))
    assert kernel.dtype == "int8" and kernel.shape[0] == DEPTH
    assert_allclose(stack(x), expected, atol=1e-6)
    # On a CPU, XLA of TensorFlow fails at any product of int8 within a loop.
    jit_compile = keras.backend.backend() == "jax"
    check_saved(compiled([stack], jit_compile), x, tmp_path)
