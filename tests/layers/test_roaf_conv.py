import keras
import numpy as np
import pytest
from arrays import array, assert_allclose, drawn
from backends import HAS_XLA
from differentiated import gradients
from layer_checker import check_layer

from keras_bsnn.layers import DepthStack, ROAFConv2D, ROAFDense, _filters
from keras_bsnn.ops import isometry, roaf

IS_JAX = keras.backend.backend() == "jax"  # slow without jit
FILTERS = [*_filters.FILTERS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"filters": 6, "alpha": 0.9}, (3, 2, 6)),
        (
            {
                "filters": 5,
                "kernel_size": (1, 2),
                "alpha": 0.5,
                "activation": "gp_relu",
                "filter": "rotations",
                "beta": 1,
                "kernel_regularizer": "l1",
                "bias_regularizer": "l2",
            },
            (2, 4, 5),
        ),
        (
            {
                "filters": 4,
                "alpha": 0.2,
                "dilation_rate": 2,
                "data_format": "channels_first",
                "shared_filter": True,
                "activation": "softmax",
                "use_bias": False,
            },
            (4, 3, 2),
        ),
    ],
)
def test_it_is_a_good_layer(arguments, shape, tmp_path):
    check_layer(ROAFConv2D, arguments, shape, shape, tmp_path)


def filtering(shape, **arguments):
    """The matrix of the filter, whose rows are responses to pixels."""
    size = int(np.prod(shape))
    layer = ROAFConv2D(shape[-1], alpha=1.0, **arguments)
    pixels = np.eye(size, dtype="float32").reshape(size, *shape)
    return array(layer(pixels)).reshape(size, size)


@pytest.mark.parametrize("shape", [(3, 4, 8), (2, 3, 5), (1, 2, 3), (1, 1, 1)])
def test_the_filter_is_exactly_a_permutation_of_all_numbers(shape):
    matrix = filtering(shape)
    assert set(np.unique(matrix)) <= {0.0, 1.0}
    np.testing.assert_array_equal(matrix @ matrix.T, np.eye(len(matrix)))


@pytest.mark.parametrize("name", FILTERS)
def test_all_filters_are_orthogonal(name):
    matrix = filtering((3, 2, 6), filter=name)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5)
    assert np.abs(matrix - np.eye(len(matrix))).max() > 0.5


def test_a_fourth_of_the_channels_moves_to_each_side():
    """Around the image."""
    x = np.zeros((1, 3, 4, 8), "float32")
    x[0, 0, 0] = 1
    y = array(ROAFConv2D(8, alpha=1.0)(x))[0]
    counts = {(0, 1): 2, (1, 0): 2, (0, 3): 2, (2, 0): 2}
    for place, count in counts.items():
        assert y[place].sum() == count
    assert y.sum() == 8


@pytest.mark.parametrize(
    ("kernel_size", "dilation_rate"), [(3, 1), ((2, 5), 1), (3, (1, 2)), (1, 1)]
)
def test_what_is_added_is_the_convolution_of_keras(kernel_size, dilation_rate):
    """In the middle of many copies of the image beside one another."""
    x = drawn(2, 3, 4, 6)
    arguments = {"kernel_size": kernel_size, "dilation_rate": dilation_rate}
    arguments |= {"bias_initializer": "normal", "activation": "tanh"}
    layer = ROAFConv2D(6, alpha=0.7, beta=2.0, filter_seed=1, **arguments)
    y = array(layer(x))
    plain = keras.layers.Conv2D(6, padding="same", **arguments)
    tiled = np.tile(x, (1, 7, 7, 1))
    plain.build(tiled.shape)
    plain.set_weights([array(layer.kernel), array(layer.bias)])
    added = array(plain(tiled))[:, 9:12, 12:16]
    filtered = array(ROAFConv2D(6, alpha=1.0, filter_seed=1)(x))
    np.testing.assert_allclose(y, 0.7 * filtered + 2 * added, atol=1e-5)


def test_of_one_pixel_and_tap_it_is_the_dense_layer():
    x = drawn(5, 6)
    dense = ROAFDense(6, 0.6, filter="permutation", bias_initializer="normal")
    conv = ROAFConv2D(6, 1, alpha=0.6)
    y = dense(x)
    conv.build((5, 1, 1, 6))
    kernel, bias, orders = dense.get_weights()
    conv.set_weights([kernel[None, None], bias, orders])
    assert_allclose(conv(x[:, None, None]), array(y)[:, None, None], atol=1e-6)


def test_channels_first():
    x = drawn(2, 3, 4, 6)
    last = ROAFConv2D(6, alpha=0.6, bias_initializer="normal")
    first = ROAFConv2D(6, alpha=0.6, data_format="channels_first")
    y, moved = last(x), np.moveaxis(x, -1, 1)
    first.build(moved.shape)
    first.set_weights(last.get_weights())
    assert_allclose(first(moved), np.moveaxis(array(y), -1, 1), atol=1e-6)


def test_images_of_any_size():
    model = keras.Sequential([keras.Input((None, None, 4)), ROAFConv2D(4, alpha=0.5)])
    assert model.output_shape == (None, None, None, 4)
    for shape in ((2, 3, 4), (1, 1, 2)):
        x = drawn(*shape, 4)
        assert_allclose(model.predict(x, verbose=0), model(x), atol=1e-6)


def spectral_norms(kernels, places):
    """Of circular convolutions: the largest of the matrices of all frequencies."""
    height, width = places
    wide = np.zeros((len(kernels), height, width, *kernels.shape[-2:]))
    for i in range(kernels.shape[1]):  # taps that meet, in small images, are added
        for j in range(kernels.shape[2]):
            wide[:, i % height, j % width] += kernels[:, i, j]
    of_frequencies = np.fft.fft2(wide, axes=(1, 2))
    return np.linalg.norm(of_frequencies, 2, axis=(-2, -1)).max(axis=(1, 2))


def test_the_start_is_that_of_the_dense_layer():
    """Of largest singular value near 2, and new in each layer and each filter."""
    stack = DepthStack(ROAFConv2D(48, alpha=0.5), 3)
    stack.build((None, 4, 4, 48))
    kernels, _, orders = map(array, stack.weights)
    norms = spectral_norms(kernels, (4, 4))
    assert np.all((norms > 1.8) & (norms < 2.4))
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    assert np.any(orders[0] != orders[1])


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "c"), [(10, 1.0), (200, 2.0)])
def test_singular_values_are_within_the_bounds(depth, c):
    """And near exp(-c), the nearer the deeper the network."""
    shape = (2, 2, 4)
    stack = DepthStack(ROAFConv2D(4, alpha=roaf.alpha_for_depth(depth, c)), depth)
    flat = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Reshape(shape),
            stack,
            keras.layers.Flatten(),
        ]
    )
    found = array(isometry.jacobian_singular_values(flat, drawn(2, 16)))
    norms = spectral_norms(array(stack.weights[0]), shape[:2])
    low, high = roaf.jacobian_bounds(1 - c / depth, 1.0, norms, depth)
    assert low <= found.min() * 1.0001 and found.max() <= high * 1.0001
    if depth >= 200:
        np.testing.assert_allclose(found, np.exp(-c), rtol=0.25)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kernel_size": 2, "filter": "haar", "use_bias": False},
        {"kernel_size": (3, 4), "shared_filter": True, "filter": "signed_haar"},
        {"dilation_rate": 2, "data_format": "channels_first"},
        {"activation": "softmax"},  # of which the rule does not know the slope
    ],
)
def test_a_stack_is_its_layers(arguments):
    """And its own gradient is that of the layers one after another."""
    x = drawn(2, 5, 5, 5)
    stack = DepthStack(ROAFConv2D(5, alpha=0.7, **arguments), 3)
    y, ours = array(stack(x)), gradients(stack, x, training=True)
    layers = [stack.layer_at(i) for i in range(3)]
    chain = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    np.testing.assert_allclose(array(chain(x)), y, atol=1e-5)
    of_x, *each = gradients(chain, x)
    count = len(stack.trainable_variables)
    theirs = [of_x, *(np.stack(each[i::count]) for i in range(count))]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_a_stack_is_saved_with_its_filters(shared, tmp_path):
    x = drawn(4, 3, 2, 4)
    block = ROAFConv2D(4, alpha=0.5, shared_filter=shared)
    stack = DepthStack(block, 6, checkpoint_every=3)
    model = keras.Sequential([keras.Input(x.shape[1:]), stack])
    model.compile("sgd", "mse", jit_compile=IS_JAX and HAS_XLA)
    model.fit(x, -x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)


def test_bfloat16_does_not_lose_alpha():
    """1 - 1e-3 is 1 in bfloat16, with which nothing would be forgotten."""
    x = drawn(2, 2, 2, 4)
    exact, rounded = (
        DepthStack(ROAFConv2D(4, alpha=0.999, dtype=dtype), 1000)
        for dtype in ("float32", "mixed_bfloat16")
    )
    exact.build(x.shape), rounded.build(x.shape)
    rounded.set_weights(exact.get_weights())
    exact, rounded = (array(s(x)).astype("float32") for s in (exact, rounded))
    assert np.linalg.norm(rounded - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"filters": 0}, "`filters` must be an integer >= 1"),
        ({"kernel_size": 0.9}, "`kernel_size` must be an integer >= 1"),
        ({"kernel_size": (3, 3, 3)}, r"`kernel_size`.*tuple of 2"),
        ({"strides": 2}, "`strides` must be left out"),
        ({"alpha": None}, "`alpha` must be a number in"),
        ({"filter": "none"}, "`filter` must be one of"),
        ({"dilation_rate": 0}, "`dilation_rate`"),
        ({"data_format": "NCHW"}, "`data_format`.*'channels_first'"),
        ({"padding": "same"}, "padding"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        ROAFConv2D(**{"filters": 4, "alpha": 0.5, **arguments})


def test_wrong_inputs():
    with pytest.raises(ValueError, match="expected axis -1"):
        ROAFConv2D(4, alpha=0.5)(drawn(2, 3, 3, 3))
    with pytest.raises(ValueError, match="ndim=4"):
        ROAFConv2D(4, alpha=0.5)(drawn(2, 3, 4))
