"""Of orthogonal convolutions, for sizes that are drawn."""

import math

import numpy as np
from draws import array, normal, property_of, rarely, seeds
from hypothesis import example, given
from hypothesis import strategies as st

from keras_bsnn import initializers, layers, recalibration
from keras_bsnn.layers import _filters

KINDS = {1: layers.OrthogonalConv1D, 2: layers.OrthogonalConv2D}
pairs = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=2
)


def arguments_of(drawn, dilation, padding, groups):
    """Arguments of a layer, and how many channels its groups need."""
    strides = tuple(min(pair) for pair in drawn)
    kernel_size = tuple(k for k, _ in drawn)
    inner = [k - s + 1 for k, s in zip(kernel_size, strides, strict=True)]
    moving = math.prod(k // 2 + 1 for k in inner) * (2 if padding == "bounce" else 1)
    arguments = {
        "kernel_size": kernel_size,
        "strides": strides,
        "dilation_rate": dilation if max(strides) == 1 else 1,
        "padding": padding,
        "groups": groups,
        "use_bias": False,
    }
    return arguments, moving * groups


@property_of(
    layers.OrthogonalConv1D, layers.OrthogonalConv2D, layers.OrthogonalConv2DTranspose
)
@rarely
@example([(3, 1), (3, 1)], 1, "circular", 1, 0, [2, 3], 0)
@example([(4, 2), (3, 2)], 1, "bounce", 2, 1, [1, 2], 0)
@given(
    pairs,
    st.integers(1, 3),
    st.sampled_from(["circular", "bounce"]),
    st.integers(1, 2),
    st.integers(0, 1),
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    seeds,
)
def test_lengths_are_kept_and_the_transpose_undoes(
    drawn, dilation, padding, groups, more, patches, seed
):
    arguments, channels = arguments_of(drawn, dilation, padding, groups)
    strides = arguments["strides"]
    filters = channels * math.prod(strides) + 2 * groups * more
    space = (n * s for n, s in zip(patches, strides, strict=False))
    x = normal((2, *space, channels), seed, "float32")
    layer = KINDS[len(strides)](filters, **arguments)
    y = layer(x)
    assert tuple(y.shape) == tuple(layer.compute_output_shape(x.shape))
    norms = [np.linalg.norm(array(z).reshape(2, -1), axis=1) for z in (x, y)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    if len(strides) == 2:
        back = layers.OrthogonalConv2DTranspose(channels, **arguments)
        back.build(y.shape)
        back.set_weights(layer.get_weights())
        np.testing.assert_allclose(array(back(y)), x, atol=1e-5)


@property_of(initializers.DeltaOrthogonal)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    seeds,
)
def test_one_tap_is_orthogonal_and_the_others_are_zero(
    space, channels, filters, groups, seed
):
    initializer = initializers.DeltaOrthogonal(seed=seed, groups=groups)
    kernel = array(initializer((*space, channels, filters * groups)))
    middle = tuple((k - 1) // 2 for k in space)
    for tap in np.split(kernel[middle], groups, axis=-1):
        singular_values = np.linalg.svd(tap, compute_uv=False)
        np.testing.assert_allclose(singular_values, 1, atol=1e-5)
    kernel[middle] = 0
    assert not kernel.any()


@property_of(layers.PerLocationNormalization)
@rarely
@given(st.integers(1, 5), st.booleans(), st.floats(1e-3, 1e3), seeds)
def test_places_have_mean_square_one(channels, append_one, scale, seed):
    x = scale * normal((2, 3, channels), seed, "float32")
    y = array(layers.PerLocationNormalization(append_one, "channels_last")(x))
    assert y.shape == (2, 3, channels + append_one)
    np.testing.assert_allclose(np.mean(y**2, axis=-1), 1, atol=1e-5)


@property_of(layers.BatchNormConv2D)
@rarely
@given(st.integers(1, 3), st.floats(0.1, 3), st.booleans(), seeds)
def test_normalized_channels_have_the_gain_for_deviation(size, gain, first, seed):
    """And in evaluation too, once the statistics are those of the data."""
    settings = {"data_format": "channels_first"} if first else {}
    layer = layers.BatchNormConv2D(5, size, gain=gain, epsilon=0, **settings)
    x = normal((9, 4, 3, 4), seed, "float32")
    places = (0, 2, 3) if first else (0, 1, 2)
    trained = array(layer(x, training=True))
    np.testing.assert_allclose(trained.mean(axis=places), 0, atol=1e-4)
    np.testing.assert_allclose(trained.std(axis=places), gain, rtol=1e-3)
    recalibration.Recalibration().set_statistics(layer, [x])
    np.testing.assert_allclose(array(layer(x)), trained, atol=1e-3)


@property_of(layers.ROAFConv2D)
@rarely
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 6),
    st.sampled_from([*_filters.FILTERS]),
    st.floats(0, 1),
    st.floats(-2, 2),
    seeds,
)
def test_filters_of_images_keep_lengths_and_add(space, width, name, alpha, beta, seed):
    """`alpha` times what keeps lengths, and `beta` times a convolution, bent."""
    x = normal((2, *space, width), seed, "float32")
    settings = {"filter": name, "filter_seed": seed, "activation": "tanh"}
    filtered = array(layers.ROAFConv2D(width, alpha=1.0, **settings)(x))
    norms = [np.linalg.norm(z.reshape(2, -1), axis=1) for z in (x, filtered)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    layer = layers.ROAFConv2D(width, alpha=alpha, beta=beta, **settings)
    y = array(layer(x))
    seen = np.zeros(x.shape)
    for i, row in enumerate(array(layer.kernel)):
        for j, tap in enumerate(row):
            seen += np.roll(x, (1 - i, 1 - j), axis=(1, 2)) @ tap
    np.testing.assert_allclose(y, alpha * filtered + beta * np.tanh(seen), atol=1e-5)
