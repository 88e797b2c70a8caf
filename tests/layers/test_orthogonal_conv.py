import keras
import numpy as np
import pytest
from arrays import drawn
from differentiated import compiled_gradients, gradients
from keras import ops
from layer_checker import check_layer

from keras_bsnn import _backend, optimizers
from keras_bsnn.initializers import DeltaOrthogonal, HaarOrthogonal
from keras_bsnn.layers import (
    DepthStack,
    OrthogonalConv1D,
    OrthogonalConv2D,
    OrthogonalConv2DTranspose,
)

# A class, its arguments, and the shape of an image.
CASES = [
    (OrthogonalConv2D, {"filters": 8}, (4, 5, 8)),
    (OrthogonalConv2D, {"filters": 13}, (4, 5, 8)),
    (OrthogonalConv2D, {"filters": 5}, (4, 5, 8)),
    (OrthogonalConv2D, {"filters": 9, "kernel_size": 1}, (2, 3, 5)),
    (OrthogonalConv2D, {"filters": 6, "kernel_size": 2}, (3, 2, 4)),
    (OrthogonalConv2D, {"filters": 9, "kernel_size": (4, 3)}, (4, 3, 8)),
    (OrthogonalConv2D, {"filters": 10, "kernel_size": 5}, (2, 1, 10)),
    (OrthogonalConv2D, {"filters": 8, "dilation_rate": (1, 2)}, (4, 5, 8)),
    (OrthogonalConv2D, {"filters": 12, "groups": 2}, (4, 3, 8)),
    (OrthogonalConv2D, {"filters": 8, "data_format": "channels_first"}, (8, 4, 3)),
    (OrthogonalConv2D, {"filters": 12, "padding": "bounce"}, (4, 1, 8)),
    (
        OrthogonalConv2D,
        {"filters": 12, "padding": "bounce", "kernel_size": 2, "dilation_rate": 3},
        (3, 2, 8),
    ),
    (OrthogonalConv2D, {"filters": 40, "strides": 2}, (4, 6, 8)),
    (OrthogonalConv2D, {"filters": 6, "kernel_size": 4, "strides": 2}, (4, 2, 4)),
    (OrthogonalConv2D, {"filters": 8, "kernel_size": 2, "strides": 2}, (4, 6, 2)),
    (
        OrthogonalConv2D,
        {"filters": 4, "kernel_size": (2, 5), "strides": (1, 3), "groups": 2},
        (2, 6, 8),
    ),
    (OrthogonalConv1D, {"filters": 8, "kernel_size": 9}, (7, 8)),
    (OrthogonalConv1D, {"filters": 9, "kernel_size": 6, "dilation_rate": 2}, (7, 4)),
    (OrthogonalConv1D, {"filters": 6, "kernel_size": 7, "strides": 2}, (4, 6)),
    (OrthogonalConv2DTranspose, {"filters": 8}, (4, 5, 8)),
    (
        OrthogonalConv2DTranspose,
        {"filters": 4, "kernel_size": 4, "strides": 2},
        (2, 3, 16),
    ),
    (
        OrthogonalConv2DTranspose,
        {"filters": 12, "strides": (1, 2), "kernel_size": 4, "groups": 2},
        (2, 3, 8),
    ),
]
PADDINGS = ("circular", "bounce", "same")


IS_JAX = keras.backend.backend() == "jax"


def is_a_convolution_on_a_cpu(kind, arguments, shape):
    is_other = {"bounce", "channels_first"} & {*arguments.values()}
    return kind is not OrthogonalConv2DTranspose and not is_other


def name_of(case):
    kind, arguments, shape = case
    return f"{kind.__name__}-{'-'.join(map(str, arguments.values()))}-{shape}"


def array(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def call(layer, x):
    """As one program under JAX, which compiles each operation of its own otherwise."""
    if not layer.built:
        layer.build(x.shape)
    found = _backend.compiled(layer, jit_compile=IS_JAX)(ops.convert_to_tensor(x))
    return array(found)


def operator(layer, shape):
    """The matrix of a layer without activation, whose rows are responses to pixels."""
    size = int(np.prod(shape))
    pixels = np.eye(size, dtype="float32").reshape(size, *shape)
    response = call(layer, np.concatenate([pixels, 0 * pixels[:1]]))
    return (response[:-1] - response[-1]).reshape(size, -1)


def check_isometry(layer, shape):
    """Orthonormal rows, or columns: all singular values of the smaller side are 1."""
    singular_values = np.linalg.svd(operator(layer, shape), compute_uv=False)
    np.testing.assert_allclose(singular_values, 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "arguments", "input_shape", "output_shape"),
    [
        (
            OrthogonalConv2D,
            {"filters": 6, "activation": "gp_tanh", "kernel_initializer": "orthogonal"},
            (3, 4, 4),
            (3, 4, 6),
        ),
        (
            OrthogonalConv2D,
            {
                "filters": 4,
                "kernel_size": 4,
                "strides": 2,
                "groups": 2,
                "padding": "same",
                "kernel_initializer": HaarOrthogonal(seed=1),
                "kernel_regularizer": "l1",
                "bias_regularizer": "l2",
                "bias_constraint": "non_neg",
            },
            (4, 4, 8),
            (2, 2, 4),
        ),
        (
            OrthogonalConv1D,
            {
                "filters": 8,
                "padding": "bounce",
                "activation": "gelu",
                "use_bias": False,
                "kernel_initializer": DeltaOrthogonal(seed=1),
            },
            (5, 4),
            (5, 8),
        ),
        (
            OrthogonalConv2DTranspose,
            {"filters": 4, "kernel_size": 4, "strides": 2},
            (2, 2, 8),
            (4, 4, 4),
        ),
        (
            OrthogonalConv2D,
            {"filters": 4, "implementation": "conv", "kernel_constraint": None},
            (4, 4, 4),
            (4, 4, 4),
        ),
    ],
)
def test_it_is_a_good_layer(kind, arguments, input_shape, output_shape, tmp_path):
    check_layer(kind, arguments, input_shape, output_shape, tmp_path)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_all_singular_values_are_one(case):
    kind, arguments, shape = case
    layer = kind(**arguments, bias_initializer="normal")
    check_isometry(layer, shape)
    layer.assert_orthogonal()
    y = call(layer, drawn(2, *shape))
    assert tuple(y.shape) == layer.compute_output_shape((2, *shape))


def without_activation(layer, shape):
    linear = type(layer).from_config({**layer.get_config(), "activation": None})
    linear.build((None, *shape))
    linear.set_weights(layer.get_weights())
    return linear


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adam", "muon", "stiefel muon"])
def test_all_singular_values_are_one_after_training(name):
    optimizer = {
        "sgd": lambda: keras.optimizers.SGD(0.3),
        "adam": lambda: keras.optimizers.Adam(0.03),
        "muon": lambda: keras.optimizers.Muon(0.03),
        "stiefel muon": lambda: optimizers.StiefelMuon(0.1, period=2),
    }[name]()
    convolutions = [
        OrthogonalConv2D(10, activation="gp_tanh"),
        OrthogonalConv2D(8, 4, 2, groups=2),
        DepthStack(OrthogonalConv2D(8, activation="gp_tanh", padding="bounce"), 3),
        OrthogonalConv2DTranspose(4, 4, 2),
    ]
    model = keras.Sequential([keras.Input((4, 4, 4)), *convolutions])
    model.compile(optimizer, "mse", jit_compile=False)
    before = model.get_weights()
    model.fit(drawn(32, 4, 4, 4), drawn(32, 4, 4, 4, seed=1), verbose=0, batch_size=4)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.abs(new - old).max() > 1e-3
    shape = (4, 4, 4)
    for layer in convolutions:
        for one in layer.each_layer() if hasattr(layer, "each_layer") else [layer]:
            one.assert_orthogonal()
            check_isometry(without_activation(one, shape), shape)
        shape = tuple(layer.compute_output_shape((1, *shape))[1:])


@pytest.mark.parametrize(
    "case", [c for c in CASES if is_a_convolution_on_a_cpu(*c)], ids=name_of
)
def test_it_computes_what_a_convolution_computes(case):
    """That of Keras, in the middle of many copies of the image beside one another."""
    kind, arguments, shape = case
    layer, x = kind(**arguments, bias_initializer="normal"), drawn(2, *shape)
    y = call(layer, x)
    of_keras = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}[layer.rank]
    plain = of_keras(**{"kernel_size": 3, **arguments}, padding="same")
    copies = 1 + 2 * 18  # more than the kernels reach
    tiled = np.tile(x, (1, *(copies if n < 4 else 7 for n in shape[:-1]), 1))
    plain.build(tiled.shape)
    plain.set_weights([array(layer.explicit_kernel()), array(layer.bias)])
    expected = call(plain, tiled)
    middle = [
        slice((m // n // 2) * n, (m // n // 2) * n + n)
        for m, n in zip(expected.shape[1:-1], y.shape[1:-1], strict=True)
    ]
    np.testing.assert_allclose(y, expected[(slice(None), *middle)], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "plain", "arguments", "shape"),
    [
        (OrthogonalConv2D, keras.layers.Conv2D, {}, (4, 5, 8)),
        (OrthogonalConv2D, keras.layers.Conv2D, {"kernel_size": 5}, (1, 4, 9)),
        (OrthogonalConv2D, keras.layers.Conv2D, {"dilation_rate": 2}, (4, 3, 8)),
        (
            OrthogonalConv2D,
            keras.layers.Conv2D,
            {"kernel_size": (5, 4), "strides": 2, "groups": 2},
            (2, 4, 12),
        ),
        (OrthogonalConv1D, keras.layers.Conv1D, {"kernel_size": 4}, (3, 5)),
        (OrthogonalConv2DTranspose, keras.layers.Conv2DTranspose, {}, (4, 3, 8)),
        (
            OrthogonalConv2DTranspose,
            keras.layers.Conv2DTranspose,
            {"filters": 9, "kernel_size": 5, "strides": 2},
            (2, 3, 8),
        ),
    ],
)
def test_zero_padding(kind, plain, arguments, shape):
    """It is that of Keras, and makes no length larger, but some smaller."""
    arguments = {"filters": 8, "kernel_size": 3, "padding": "same", **arguments}
    layer, x = kind(**arguments, bias_initializer="normal"), drawn(2, *shape)
    y = call(layer, x)
    of_keras = plain(**arguments)
    of_keras.build(x.shape)
    of_keras.set_weights([array(layer.explicit_kernel()), array(layer.bias)])
    np.testing.assert_allclose(y, call(of_keras, x), atol=1e-5)
    singular_values = np.linalg.svd(operator(layer, shape), compute_uv=False)
    assert singular_values.max() < 1 + 1e-5 and singular_values.min() < 0.9


@pytest.mark.parametrize(
    "arguments",
    [
        *({"padding": padding} for padding in PADDINGS),
        {"kernel_size": 4, "strides": 2, "padding": "same"},
        {"kernel_size": (2, 5), "strides": (2, 3), "groups": 2},
        {"kernel_size": 2, "strides": 2},
        {"kernel_size": 2, "dilation_rate": 3, "padding": "bounce"},
        {"data_format": "channels_first", "filters": 6},
    ],
)
def test_the_transpose_is_the_adjoint(arguments):
    """`<A x, y> = <x, A^T y>` with the same matrices."""
    is_first = "data_format" in arguments
    x = drawn(1, *((8, 4, 6) if is_first else (4, 6, 8)))
    layer = OrthogonalConv2D(**{"filters": 16, "use_bias": False, **arguments})
    image = call(layer, x)
    y = drawn(*image.shape, seed=1)
    back = OrthogonalConv2DTranspose(**{**arguments, "filters": 8, "use_bias": False})
    back.build(y.shape)
    back.set_weights(layer.get_weights())
    z = call(back, y)
    np.testing.assert_allclose(np.sum(image * y), np.sum(x * z), rtol=1e-4)
    assert z.shape == x.shape == back.compute_output_shape(y.shape)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": 8},
        {"filters": 13, "kernel_size": 5},
        {"filters": 22, "groups": 2, "dilation_rate": 2},
    ],
)
def test_delta_start(padding, arguments):
    """All pixels are multiplied by one orthogonal matrix, under any padding."""
    channels = 36 if "kernel_size" in arguments else 16
    arguments = {**arguments, "filters": arguments["filters"] + channels + 1}
    if padding == "bounce" or "groups" in arguments:
        arguments["filters"] += arguments["filters"] % 2
    start = DeltaOrthogonal(seed=3)
    layer = OrthogonalConv2D(**arguments, padding=padding, kernel_initializer=start)
    x = drawn(1, 3, 4, channels)
    y, one = call(layer, x), call(layer, x[:, 1:2, 2:3])
    np.testing.assert_allclose(y[:, 1:2, 2:3], one, atol=1e-5)
    norms = [np.linalg.norm(z, axis=-1) for z in (x, y)]
    np.testing.assert_allclose(*norms, rtol=1e-5)


def test_delta_start_of_patches():
    """With strides, the pixels of the patch in the middle make up the output."""
    layer = OrthogonalConv2D(4, 4, 2, kernel_initializer=DeltaOrthogonal())
    layer.build((None, 4, 4, 4))
    taps = np.abs(array(layer.explicit_kernel())).max(axis=(2, 3))
    expected = np.pad(np.ones((2, 2)), 1)
    np.testing.assert_array_equal(taps > 1e-3, expected)
    whole = OrthogonalConv2D(4, 2, 2, kernel_initializer=DeltaOrthogonal())
    check_isometry(whole, (4, 4, 4))
    with pytest.raises(ValueError, match=r"`kernel_size`.*even.*DeltaOrthogonal"):
        OrthogonalConv2D(4, 2, kernel_initializer=DeltaOrthogonal())(drawn(1, 2, 2, 4))


def test_two_matrices_of_one_seed_differ():
    for initializer in (HaarOrthogonal(seed=1), keras.initializers.Orthogonal()):
        layer = OrthogonalConv2D(4, kernel_initializer=initializer)
        layer.build((None, 3, 3, 4))
        assert np.abs(array(layer.inner_kernel) - array(layer.kernel)).max() > 0.1


def reach(padding):
    """How many pixels away a pixel in a corner is seen."""
    layer = OrthogonalConv2D(8, padding=padding, use_bias=False)
    x = np.zeros((1, 9, 9, 8), "float32")
    x[:, 0, 0] = 1
    return np.abs(array(layer(x))).max(axis=(0, 3)) > 1e-6


def test_what_a_pixel_reaches():
    """A bounce sends nothing to the other side, and the torus does."""
    circular, bounce = reach("circular"), reach("bounce")
    assert circular[:2, :2].all() and circular[-1, -1] and circular.sum() == 9
    assert bounce[:3, :3].any() and not bounce[3:].any() and not bounce[:, 3:].any()


BLOCKS = [
    (OrthogonalConv2D, {}, (3, 4, 8)),
    (OrthogonalConv2D, {"padding": "bounce", "kernel_size": 2}, (3, 2, 8)),
    (OrthogonalConv2D, {"kernel_size": 1, "use_bias": False}, (2, 2, 8)),
    (OrthogonalConv2DTranspose, {"padding": "bounce"}, (3, 2, 8)),
    (OrthogonalConv2DTranspose, {"padding": "same", "groups": 2}, (3, 4, 8)),
    (
        OrthogonalConv1D,
        {"kernel_size": 5, "padding": "same", "data_format": "channels_first"},
        (8, 3),
    ),
]


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_a_stack_is_its_layers(block):
    """And its own gradient is that of the layers one after another."""
    kind, arguments, shape = block
    if "use_bias" not in arguments:
        arguments = {**arguments, "bias_initializer": "normal"}
    stack, x = (
        DepthStack(kind(8, activation="gp_tanh", **arguments), 3),
        drawn(2, *shape),
    )
    y, ours = call(stack, x), gradients(stack, x, training=True)
    layers = [stack.layer_at(i) for i in range(3)]
    chain = keras.Sequential([keras.Input(shape), *layers])
    np.testing.assert_allclose(call(chain, x), y, atol=1e-5)
    of_x, *each = gradients(chain, x)
    count = len(stack.trainable_variables)
    theirs = [of_x, *(np.stack(each[i::count]) for i in range(count))]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_its_own_gradient_is_that_of_what_it_computes(block):
    kind, arguments, shape = block
    layer, x = kind(12, activation="tanh", **arguments), drawn(2, *shape)
    layer.build(x.shape)
    rule, tensors = layer._rule(), layer.depth_tensors()

    def plain(values):
        x, *weights = values
        step = rule.step(rule.enter(x), tensors._replace(weights=weights))
        return ops.sum(ops.sin(rule.leave(step.carry)))

    values = [ops.convert_to_tensor(x), *map(_backend.read, tensors.weights)]
    expected = compiled_gradients(plain, values)
    for ours, theirs in zip(gradients(layer, x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({}, (4, 5, 8)),
        ({"kernel_size": 5, "groups": 2}, (1, 2, 18)),
        ({"kernel_size": 4, "strides": 2, "use_bias": False}, (4, 2, 8)),
        ({"padding": "same", "dilation_rate": 2}, (4, 5, 8)),
    ],
)
def test_both_implementations_are_one(arguments, shape):
    shifts = OrthogonalConv2D(18, activation="tanh", **arguments)
    conv = OrthogonalConv2D(18, activation="tanh", implementation="conv", **arguments)
    x = drawn(2, *shape)
    shifts.build(x.shape), conv.build(x.shape)
    conv.set_weights(shifts.get_weights())
    np.testing.assert_allclose(call(conv, x), call(shifts, x), atol=1e-5)
    pairs = zip(gradients(conv, x), gradients(shifts, x), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    stack = DepthStack(OrthogonalConv2D(8, implementation="conv"), 2)
    assert stack(drawn(1, 2, 2, 8)).shape == (1, 2, 2, 8)


def test_channels_first():
    x = drawn(2, 4, 6, 8)
    last = OrthogonalConv2D(6, 4, 2, activation="tanh", bias_initializer="normal")
    y = array(last(x))
    first = OrthogonalConv2D(6, 4, 2, activation="tanh", data_format="channels_first")
    x = np.moveaxis(x, -1, 1)
    first.build(x.shape)
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(np.moveaxis(array(first(x)), 1, -1), y, atol=1e-6)


def test_an_activation_over_channels():
    x = drawn(2, 3, 4, 8)
    for arguments in ({}, {"implementation": "conv"}):
        layer = OrthogonalConv2D(8, activation="softmax", **arguments)
        y = call(layer, x)
        np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)
        stack = DepthStack(OrthogonalConv2D(8, activation="softmax", **arguments), 1)
        stack.build(x.shape)
        stack.set_weights([w[None] for w in layer.get_weights()])
        np.testing.assert_allclose(call(stack, x), y, atol=1e-6)


def test_images_of_any_size():
    """A model that does not know the size takes them, one after the other."""
    layers = [OrthogonalConv2D(8, 4, 2), OrthogonalConv2D(8, padding="bounce")]
    layers += [OrthogonalConv2D(6, padding="same"), OrthogonalConv2DTranspose(4, 4, 2)]
    model = keras.Sequential([keras.Input((None, None, 4)), *layers])
    assert model.output_shape == (None, None, None, 4)
    for shape in ((2, 4, 4), (3, 2, 6)):
        x = drawn(*shape, 4)
        y = model.predict(x, verbose=0)
        assert y.shape == x.shape
        np.testing.assert_allclose(y, array(model(x)), atol=1e-5)


def test_no_images():
    for layer in (OrthogonalConv2D(6, 4, 2), OrthogonalConv2DTranspose(6, 4, 2)):
        y = layer(np.zeros((0, 4, 4, 8), "float32"))
        assert tuple(y.shape) == layer.compute_output_shape((0, 4, 4, 8))


def test_assert_orthogonal():
    layer = OrthogonalConv2D(8, name="first", groups=2)
    layer.build((None, 4, 4, 8))
    inner, kernel, bias = layer.get_weights()
    kernel[1] *= 1.1
    layer.set_weights([inner, kernel, bias])
    layer.assert_orthogonal(eps=0.3)
    with pytest.raises(AssertionError, match=r"'kernel' of layer 'first'.*0\.21"):
        layer.assert_orthogonal()
    layer.set_weights([np.full_like(inner, np.nan), kernel, bias])
    with pytest.raises(AssertionError, match=r"'inner_kernel' of layer 'first'.*inf"):
        layer.assert_orthogonal()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "`filters` must be an integer >= 1"),
        ({"filters": 9, "groups": 2}, "`filters` must be divisible by groups=2"),
        ({"groups": 0}, "`groups`"),
        ({"kernel_size": 0}, "`kernel_size` must be an integer >= 1"),
        ({"kernel_size": (3, 3, 3)}, r"`kernel_size`.*tuple of 2.*\(3, 3, 3\)"),
        ({"kernel_size": 2, "strides": 3}, r"`kernel_size`.*at least strides=\(3, 3\)"),
        ({"strides": 2, "dilation_rate": 2}, "`dilation_rate` must be 1 where strides"),
        ({"padding": "zeros"}, "`padding` must be one of.*'circular'.*'zeros'"),
        ({"padding": "circula"}, "Did you mean 'circular'"),
        ({"data_format": "NCHW"}, "`data_format`.*'channels_first'.*'NCHW'"),
        ({"activation": "nope"}, "`activation`.*'nope'"),
        ({"kernel_initializer": "nope"}, "`kernel_initializer`"),
        ({"implementation": "fft"}, "`implementation` must be one of.*'fft'"),
        ({"implementation": "conv", "padding": "bounce"}, "`implementation`.*'bounce'"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalConv2D(**{"filters": 8, **arguments})


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (4, 4, 3), "at least 4 in each group.*Received: 3.*kernel_size=strides"),
        ({"padding": "bounce"}, (4, 4, 6), "even and at least 8.*Received: 6"),
        ({"padding": "bounce"}, (4, 4, 9), "even and at least 8.*Received: 9"),
        ({"groups": 2}, (4, 4, 6), "at least 4 in each group.*Received: 3"),
        ({"groups": 2}, (4, 4, 9), "channels.*divisible by groups=2.*9"),
        ({"kernel_size": 4, "strides": 2}, (4, 5, 8), r"`strides`.*\(4, 5\).*\(2, 2\)"),
        ({}, (4, 4, None), "channels.*known size"),
    ],
)
def test_bad_shapes(arguments, shape, message):
    layer = OrthogonalConv2D(**{"filters": 8, **arguments})
    with pytest.raises(ValueError, match=message):
        layer(keras.KerasTensor((1, *shape)))


def test_bad_inputs():
    layer = OrthogonalConv2D(8)
    with pytest.raises(ValueError, match=r"floating point.*int32"):
        layer(ops.ones((1, 4, 4, 8), "int32"))
    with pytest.raises(ValueError, match="ndim=4"):
        layer(drawn(4, 4, 8))
    with pytest.raises(ValueError, match="expected axis -1 of input shape"):
        layer(drawn(1, 4, 4, 9))
    strided = OrthogonalConv2D(8, 4, 2)
    strided.build((None, None, None, 8))
    with pytest.raises(ValueError, match="`strides` must be divisors"):
        strided(drawn(1, 4, 5, 8))
    bounce = OrthogonalConv2D(8, padding="bounce")
    bounce.build((None, 4, 4, 8))
    with pytest.raises(ValueError, match=r"`padding`.*a convolution to.*'bounce'"):
        bounce.explicit_kernel()
    conv = OrthogonalConv2D(8, implementation="conv")
    conv.build((None, None, None, 8))
    with pytest.raises(ValueError, match=r"`implementation`.*unknown size"):
        conv.call(keras.KerasTensor((1, None, 4, 8)))
    with pytest.raises(ValueError, match=r"`implementation`.*transpose"):
        OrthogonalConv2DTranspose(8, implementation="conv")
