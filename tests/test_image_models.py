"""Networks of convolutions with batch normalization, or with additive filters."""

import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, assert_array_equal

from keras_bsnn import datasets, diagnostics, manifolds, models
from keras_bsnn.activations import DepthShaped
from keras_bsnn.callbacks import RecalibrateBatchNorm
from keras_bsnn.layers import BatchNormConv2D, DepthStack, ROAFConv2D
from keras_bsnn.optimizers import StiefelMuon

IS_JAX = keras.backend.backend() == "jax"  # which is slow without XLA
MAKERS = [models.batchnorm_cnn, models.roaf_cnn]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits(split):
    """All images of a split, which is small."""
    batches = datasets.load("digits", split, 64, shuffle=False)
    parts = [[np.asarray(part) for part in batch] for batch in batches]
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def batch(images=64):
    x, y = digits("test")
    return x[:images], y[:images]


@pytest.mark.parametrize("maker", MAKERS)
def test_what_they_are_made_of(maker):
    model = maker(12, 8, input_shape=(24, 16, 3), classes=5)
    *stem, first, stack, flatten, dense = (
        layer for layer in model.layers if not layer.name.startswith("rescaling")
    )
    assert [layer.filters for layer in stem] == [16, 32]
    assert {layer.strides for layer in stem} == {(2, 2)}
    assert first.kernel_size == (1, 1)
    assert isinstance(stack, DepthStack) and stack.depth == 12
    assert stack.block.kernel_size == (3, 3)
    assert flatten.output.shape == (None, 6 * 4 * 8)
    assert dense.dtype == "float32" and model.output_shape == (None, 5)


def test_their_blocks():
    block = models.batchnorm_cnn(100, 8, "relu", input_shape=(8, 8, 1)).layers[2].block
    assert isinstance(block, BatchNormConv2D)
    assert isinstance(block.activation, DepthShaped)
    assert block.gain == 1 and block.shrinkage == 0.98
    block = models.batchnorm_cnn(16, 8, input_shape=(8, 8, 1)).layers[2].block
    assert block.activation is keras.activations.tanh and block.gain == 0.375
    block = models.roaf_cnn(100, 8, c=2.0, input_shape=(8, 8, 1)).layers[2].block
    assert isinstance(block, ROAFConv2D) and block.alpha == 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maker", "arguments", "gradients"),
    [
        (models.batchnorm_cnn, {}, (0.5, 8)),
        (models.batchnorm_cnn, {"activation": "relu"}, (0.5, 2)),
        (models.batchnorm_cnn, {"activation": None}, (0.5, 2)),
        # Within exp(-c (1 + 2)) and exp(c), and near exp(-c).
        (models.roaf_cnn, {}, (0.3, 0.5)),
        (models.roaf_cnn, {"activation": "relu", "c": 3.0}, (0.03, 0.08)),
    ],
)
def test_signals_and_gradients_get_through(maker, arguments, gradients):
    """Though patches of 4 pixels leave most of the 16 channels dependent."""
    x, y = batch()
    settings = {"input_shape": x.shape[1:], "seed": 0}
    model = maker(200, 16, **settings, **arguments)
    model.compile("sgd", LOSS)
    report = diagnostics.signal_report(model, x, y)
    assert "The signal gets through" in report.verdict
    low, high = gradients
    norms = report.gradient[2:-3]  # at the outputs of the layers of the stack
    assert low < norms[0] / norms[-1] < high
    assert report.cosine_similarity[:-2].max() < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS)
def test_they_learn_and_are_saved(maker, tmp_path):
    """The digits, with 20 layers, to more than 90 % of those in the test set."""
    (x, y), test = digits("train"), digits("test")
    is_normalized = maker is models.batchnorm_cnn
    model = maker(20, 16, input_shape=x.shape[1:], seed=0)
    keras.utils.set_random_seed(0)
    optimizer = StiefelMuon(0.05) if is_normalized else keras.optimizers.Adam(0.01)
    model.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=IS_JAX)
    recalibrate = RecalibrateBatchNorm(x[:500], validation=False)
    callbacks = [recalibrate] if is_normalized else []
    model.fit(x, y, batch_size=60, epochs=4, verbose=0, callbacks=callbacks)
    _, accuracy = model.evaluate(*test, batch_size=99, verbose=0)
    assert accuracy > 0.9
    kernels = [*manifolds.constrained(model.trainable_variables)]
    assert len(kernels) == (2 if is_normalized else 0)
    for kernel, manifold in kernels:
        assert np.max(array(manifold.error(kernel))) < 1e-4
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_array_equal(again(test[0]), model(test[0]))


@pytest.mark.parametrize("maker", MAKERS)
def test_channels_first(maker):
    """If Keras is set to it; the first layer of Keras does not run so on all CPUs."""
    x = batch(9)[0]
    last = maker(3, 8, stem=(), input_shape=(8, 8, 1), seed=0)
    keras.config.set_image_data_format("channels_first")
    try:
        model = maker(3, 8, stem=(), input_shape=(1, 8, 8), seed=0)
        assert model.layers[1].block.data_format == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    if maker is models.batchnorm_cnn:
        hidden = [keras.Sequential(m.layers[:2]) for m in (last, model)]
        for a, b in zip(last.layers[:2], model.layers[:2], strict=True):
            b.set_weights(a.get_weights())
        y, found = hidden[0](x), hidden[1](np.moveaxis(x, -1, 1))
        assert_allclose(np.moveaxis(array(found), 1, -1), y, atol=1e-4)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "`depth`"),
        ({"filters": 0}, "`filters`"),
        ({"activation": "nope"}, "nope"),
        ({"stem": (16, 0)}, "`stem` must be a sequence of positive integers"),
        ({"input_shape": None}, "`input_shape` must be of known height and width"),
        ({"input_shape": (64,)}, "`input_shape`.*three integers"),
        ({"input_shape": (8, None, 1)}, "`input_shape` must be of known height"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_bad_arguments(maker, arguments, message):
    with pytest.raises(ValueError, match=message):
        maker(**{"depth": 2, "filters": 4, "input_shape": (8, 8, 1), **arguments})
