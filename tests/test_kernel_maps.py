"""Second moments and correlations that are predicted are those of wide networks."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from simulated_kernels import WIDTH, errors

from keras_bsnn import shaping
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.shaping._iterated import iterated

IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
PLACES = (6, 6)
BOUND = 0.03


def dense(activation=None, **kwargs):
    """Of an orthogonal kernel, which adds no noise to a second moment."""
    kernel = keras.initializers.Orthogonal(2**0.5)
    return layers.Dense(WIDTH, activation, kernel_initializer=kernel, **kwargs)


def biased(activation):
    biases = keras.initializers.RandomNormal(stddev=0.3)
    return dense(activation, bias_initializer=biases)


def conv(activation=None, **kwargs):
    given = {"padding": "same", "kernel_initializer": "he_normal", **kwargs}
    return layers.Conv2D(WIDTH, 3, activation=activation, **given)


def chain(*makers, places=PLACES):
    """A maker of a sequential model of what each maker returns."""

    def make():
        return keras.Sequential(
            [keras.Input((*places, WIDTH)), *(maker() for maker in makers)]
        )

    return make


def graph(function, places=PLACES):
    """A maker of a model of a function of a tensor."""

    def make():
        x = keras.Input((*places, WIDTH))
        return keras.Model(x, function(x))

    return make


def branches(merge):
    """Two branches that end in linear maps, merged."""
    return graph(lambda x: dense("relu")(merge([dense("relu")(x), dense("tanh")(x)])))


def residual(x):
    for _ in range(2):
        y = conv()(layers.ReLU()(x))
        x = layers.Add()([x, y])
    return layers.ReLU()(x)


def gated(x):
    x = conv("relu")(x)
    gate = layers.Reshape((1, 1, WIDTH))(layers.GlobalAveragePooling2D()(x))
    gate = dense("sigmoid")(dense("relu")(gate))
    return dense("relu")(layers.Multiply()([x, gate]))


def nested(x):
    shared = keras.Sequential([keras.Input((*PLACES, WIDTH)), dense("gelu"), dense()])
    return layers.ReLU()(shared(shared(x)))


def through(layer, **kwargs):
    """A layer between two that are random."""
    return chain(lambda: conv("relu"), lambda: layer(**kwargs), lambda: dense("relu"))


CASES = {
    "dense": chain(*(lambda a=a: biased(a) for a in ("relu", "tanh", "gelu"))),
    "convolution": chain(*[lambda: conv("relu")] * 2),
    "strided convolution": chain(lambda: conv("tanh"), lambda: conv(strides=2)),
    "dilated convolution": chain(
        lambda: conv("tanh"), lambda: conv(dilation_rate=2, padding="valid")
    ),
    "causal convolution": chain(
        *[lambda: layers.Conv1D(WIDTH, 3, padding="causal", activation="relu")] * 2,
        places=(8,),
    ),
    "convolution of volumes": chain(
        lambda: layers.Conv3D(WIDTH, 2, activation="relu"), places=(3, 3, 3)
    ),
    "depthwise": through(layers.DepthwiseConv2D, kernel_size=3, padding="same"),
    "separable": through(layers.SeparableConv2D, filters=WIDTH, kernel_size=3),
    "transposed": through(
        layers.Conv2DTranspose, filters=WIDTH, kernel_size=3, strides=2, padding="same"
    ),
    "transposed, valid": through(
        layers.Conv2DTranspose, filters=WIDTH, kernel_size=3, strides=2
    ),
    "average pooling": through(layers.AveragePooling2D, pool_size=2),
    "average pooling at edges": through(
        layers.AveragePooling2D, pool_size=3, strides=2, padding="same"
    ),
    "max pooling": through(layers.MaxPooling2D),
    "max pooling at edges": through(
        layers.MaxPooling2D, pool_size=3, strides=2, padding="same"
    ),
    "global average": through(layers.GlobalAveragePooling2D),
    "global maximum": through(layers.GlobalMaxPooling2D),
    "flatten": chain(
        lambda: conv("relu"), layers.Flatten, lambda: dense("relu"), places=(3, 3)
    ),
    "zeros at edges": chain(
        lambda: conv("relu"), lambda: layers.ZeroPadding2D(2), lambda: conv("relu")
    ),
    "cropping": through(layers.Cropping2D),
    "zeros at edges of a maximum": chain(
        lambda: conv("relu"),
        lambda: layers.ZeroPadding2D(1),
        lambda: layers.MaxPooling2D(3, 2),
        lambda: dense("relu"),
    ),
    "upsampling": chain(
        lambda: conv("relu"), layers.UpSampling2D, lambda: conv("relu"), places=(4, 4)
    ),
    "reshape": chain(
        lambda: conv("relu"),
        lambda: layers.Reshape((36, WIDTH)),
        lambda: layers.Conv1D(WIDTH, 3, padding="same", activation="relu"),
    ),
    "channels as places": chain(
        lambda: layers.Dense(16 * 64, "relu"),
        lambda: layers.Reshape((4, 4, 64)),
        lambda: conv("relu"),
        places=(),
    ),
    "permute": through(layers.Permute, dims=(2, 1, 3)),
    "normalization": through(layers.Normalization, mean=0.3, variance=2.0),
    "rescaling": through(layers.Rescaling, scale=0.5, offset=0.2),
    "LayerNormalization": through(layers.LayerNormalization),
    "RMSNormalization": through(layers.RMSNormalization),
    "GroupNormalization": through(layers.GroupNormalization),
    "UnitNormalization": through(layers.UnitNormalization),
    "PReLU": through(layers.PReLU, alpha_initializer=keras.initializers.Constant(0.3)),
    "residual": graph(residual),
    "squeeze and excitation": graph(gated),
    "nested and shared": graph(nested),
    "add": branches(layers.Add()),
    "subtract": branches(layers.Subtract()),
    "average": branches(layers.Average()),
    "multiply": branches(layers.Multiply()),
    "concatenate": branches(layers.Concatenate()),
    "swish by hand": graph(lambda x: (lambda y: y * ops.sigmoid(y))(dense()(x))),
    "functions": graph(lambda x: 0.5 + ops.square(ops.tanh(2.0 - dense()(x) / 3.0))),
    "own": chain(
        lambda: OrthogonalDense(WIDTH, "gp_gelu"),
        lambda: DepthStack(OrthogonalDense(WIDTH, "gp_relu"), 6),
        places=(4, 4),
    ),
}
# Predictions are computed by NumPy: on other backends, what runs functions of theirs.
ELSEWHERE = ["dense", "max pooling", "swish by hand", "functions", "own"]
IN_TRAINING = {
    "batch normalization": (through(layers.BatchNormalization), 32),
    "dropout": (through(layers.Dropout, rate=0.5), 4),
}


def assert_predicted(make, **kwargs):
    seeds = 6 if len(make().input_shape) > 3 else 24
    found, error = errors(make, seeds=seeds, **kwargs)
    assert np.nanmax(error) < 0.04
    assert np.nanmax(np.abs(found) - 3 * error) < BOUND, (found, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES if IS_TENSORFLOW else ELSEWHERE)
def test_predictions(name):
    assert_predicted(CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_TRAINING)
def test_predictions_in_training(name):
    make, count = IN_TRAINING[name]
    assert_predicted(make, training=True, count=count)


@pytest.mark.parametrize("gain", [0.9, 1.0, 1.01, 2.0])
def test_a_stack_takes_no_longer_the_deeper_it_is(gain):
    """And is its layers, one after the other."""
    calls = 0

    def step(state):
        nonlocal calls
        calls += 1
        q, k = state
        c = np.clip(k / q, -1, 1)  # the map of a ReLU
        relu = (np.sqrt(1 - c**2) + c * (np.pi - np.arccos(c))) / np.pi
        return gain * np.array([q, q * relu])

    state = np.array([1.0, 0.2])
    for _ in range(500):
        state = step(state)
    calls = 0
    found = iterated(step, np.array([1.0, 0.2]), 500)
    np.testing.assert_allclose(found, state, 0.02)
    assert calls < 200
    calls = 0
    iterated(step, np.array([1.0, 0.2]), 10**5)
    assert calls < 2000


def test_data_is_where_it_begins():
    x = np.random.default_rng(0).normal(2, 1, (64, 4, 4, 8))
    model = keras.Sequential([keras.Input((4, 4, 8)), layers.Rescaling(3.0)])
    (found,) = shaping.kernel_maps(model, x)
    assert found.second_moment == pytest.approx(9 * np.square(x).mean(), rel=1e-3)
    assert abs(found.inputs - 0.8) < 0.02 and abs(found.places - 0.8) < 0.02


class Unknown(layers.Layer):
    def call(self, inputs):
        return inputs


def subclass():
    class Own(keras.Model):
        def call(self, x):
            return x

    return Own()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (subclass, "keras.Model\\(inputs, outputs\\)"),
        (lambda: keras.Sequential([layers.Dense(3)]), "`model` must be built"),
        (lambda: 3, "`model` must be a functional or sequential model"),
        (
            lambda: keras.Sequential([keras.Input((4,)), Unknown(name="u")]),
            "'u', of Unknown, has no map.*register_map\\(Unknown\\)",
        ),
        (
            lambda: keras.Sequential([keras.Input((None, 4)), layers.Dense(3)]),
            "`x` must be given",
        ),
    ],
)
def test_bad_models(model, message):
    with pytest.raises(ValueError, match=message):
        shaping.kernel_maps(model())


def stack(**kwargs):
    return DepthStack(OrthogonalDense(4), 3, name="stack", **kwargs)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.LayerNormalization(axis=1), "must act on the last axis"),
        (lambda: layers.BatchNormalization(axis=1), "must act on the last axis"),
        (lambda: layers.Softmax(axis=1), "must act on the last axis"),
        (lambda: layers.Permute((3, 1, 2)), "must keep the channels last"),
        (lambda: layers.UpSampling2D(2, interpolation="bilinear"), "repeat places"),
        (lambda: stack(return_sequences=True), "'stack' must .* last layer alone"),
        (lambda: stack(layer_drop=0.5), "'stack' must .* and skip none"),
    ],
)
def test_what_has_no_map(layer, message):
    model = keras.Sequential([keras.Input((2, 2, 4)), layer()])
    with pytest.raises(ValueError, match=message):
        shaping.kernel_maps(model, training=True)


def test_a_batch_for_each_input():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    x = np.ones((2, 4))
    with pytest.raises(ValueError, match="`x` must be a batch for each of 1 inputs"):
        shaping.kernel_maps(model, [x, x])


def test_bad_kinds():
    with pytest.raises(ValueError, match="`kinds` must be classes of layers"):
        shaping.register_map("relu")


def test_a_map_of_ones_own():
    class Twice(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    model = keras.Sequential([keras.Input((8,)), Twice(8)])
    with pytest.raises(ValueError, match="has no map"):
        shaping.kernel_maps(model)

    @shaping.register_map(Twice)
    def twice(layer, signal):
        return signal.pointwise(lambda x: 2 * x)

    (found,) = shaping.kernel_maps(model)
    assert found.second_moment == pytest.approx(4.0, abs=1e-3)
