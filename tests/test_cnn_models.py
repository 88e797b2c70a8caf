import keras
import numpy as np
import pytest
from arrays import assert_array_equal
from backends import HAS_XLA
from networks import layers_of

from keras_bsnn import diagnostics, models
from keras_bsnn.activations import DepthShaped
from keras_bsnn.callbacks import Retract
from keras_bsnn.layers import OrthogonalConv2D
from keras_bsnn.optimizers import StiefelMuon

SHAPE = (8, 8, 1)


def data(samples=64):
    """Images with a bright pixel, and in which quarter it is."""
    rng = np.random.default_rng(0)
    x = 0.3 * rng.normal(size=(samples, *SHAPE)).astype("float32")
    y = rng.integers(0, 4, size=samples)
    x[np.arange(samples), 2 + 4 * (y // 2), 2 + 4 * (y % 2)] += 4
    return x, y


@pytest.mark.parametrize("stacked", [True, False])
def test_what_it_is_made_of(stacked):
    model = models.bsnn_cnn(12, 8, input_shape=SHAPE, stacked=stacked)
    assert len(layers_of(model, OrthogonalConv2D)) == 12
    assert len(model.layers) == 4 + (1 if stacked else 12) + 2
    assert model.output_shape == (None, 10)
    activation = layers_of(model, OrthogonalConv2D)[0].activation
    assert isinstance(activation, DepthShaped)
    assert (activation.depth, activation.eta) == (12, 0.15)


def test_stages_are_joined_by_orthogonal_strides():
    model = models.bsnn_cnn((2, 9), (4, 8), stem=(), input_shape=SHAPE)
    layers = layers_of(model, OrthogonalConv2D)
    assert [layer.strides[0] for layer in layers] == [1, 1, 2] + 9 * [1]
    assert [layer.filters for layer in layers] == 2 * [4] + 10 * [8]
    assert layers[0].activation.depth == 12
    flatten = model.layers[-2]
    assert flatten.input.shape == (None, 4, 4, 8)


@pytest.mark.parametrize(
    ("image", "filters"),
    [
        ((28, 28), (16, 32, 64)),
        ((32, 32), (16, 32, 64)),
        ((4, 9), ()),
        ((7, 64), (16,)),
        ((6, 64), ()),
    ],
)
def test_a_stem_leaves_four_pixels(image, filters):
    model = models.bsnn_cnn(1, input_shape=(*image, 3))
    strided = [layer for layer in model.layers if layer.name.startswith("conv2d")][:-1]
    assert tuple(layer.filters for layer in strided) == filters
    assert min(model.layers[-2].input.shape[1:3]) >= 4


def test_the_stack_starts_from_normalized_places():
    model = models.bsnn_cnn(20, 32, "gp_relu", input_shape=SHAPE, seed=0)
    model.compile(loss="mse")
    x, _ = data()
    y = np.random.default_rng(0).normal(size=(len(x), 10)).astype("float32")
    norms = diagnostics.signal_report(model, x, y, training=False).trained()
    assert np.abs(norms.root_mean_square[2:-1] - 1).max() < 0.3
    gradient = norms.gradient[2:-1]
    assert gradient.max() < 2 * gradient.min()


def test_a_seed_repeats_the_weights_and_no_two_layers_share_them():
    arguments = {"input_shape": SHAPE, "stacked": False}
    first, second, third = (
        models.bsnn_cnn(3, 8, seed=seed, **arguments).get_weights()
        for seed in (1, 1, 2)
    )
    for a, b, c in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim < 2 or np.abs(a - c).max() > 0.01
    square = [w for w in first if w.shape == (8, 8)]
    assert len(square) == 6
    for i, kernel in enumerate(square):
        assert all(np.abs(kernel - other).max() > 0.01 for other in square[:i])


@pytest.mark.slow
def test_it_learns_stays_orthogonal_and_is_saved(tmp_path):
    x, y = data()
    model = models.bsnn_cnn(30, 8, "tanh", classes=4, input_shape=SHAPE, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(StiefelMuon(0.1), loss, metrics=["accuracy"], jit_compile=HAS_XLA)
    history = model.fit(x, y, epochs=20, verbose=0, callbacks=[Retract()]).history
    assert history["accuracy"][-1] > 0.95
    for layer in layers_of(model, OrthogonalConv2D):
        layer.assert_orthogonal(1e-6)
    *_, last_of_stem, _, _, _, _, _ = model.layers
    columns = np.linalg.norm(
        keras.ops.convert_to_numpy(last_of_stem.kernel)[0, 0], axis=0
    )
    np.testing.assert_allclose(columns, 0.5, atol=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_array_equal(model(x), again(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "`depth`"),
        ({"depth": (2, 0)}, "`depth`"),
        ({"depth": (2, 2)}, "`filters`"),
        ({"filters": 2.5}, "`filters`"),
        ({"activation": "nope"}, "nope"),
        ({"eta": 1.5}, "`eta`"),
        ({"stem": (0,)}, "`stem`"),
        ({"stem": 16}, "`stem`"),
        ({"padding": "valid"}, "`padding`"),
        ({"retraction": "nope"}, "`retraction`"),
        ({"input_shape": None}, "`input_shape`"),
        ({"input_shape": (20,)}, "`input_shape`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.bsnn_cnn(
            **{"depth": 12, "filters": 4, "input_shape": SHAPE, **arguments}
        )
