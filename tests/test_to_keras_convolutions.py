"""Orthogonal convolutions as those of Keras: the same outputs, also at the edges."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from arrays import assert_allclose

from keras_bsnn import activations, models
from keras_bsnn.export import _writing, to_keras
from keras_bsnn.layers import (
    BatchNormConv2D,
    DepthStack,
    OrthogonalConv1D,
    OrthogonalConv2D,
    OrthogonalConv2DTranspose,
    ROAFConv2D,
)
from keras_bsnn.optimizers import StiefelMuon

SHAPED = activations.DepthShaped("tanh", 10)
# A class, its arguments, and the shape of an image.
CASES = [
    (OrthogonalConv2D, {"filters": 13}, (4, 5, 8)),
    (OrthogonalConv2D, {"filters": 9, "kernel_size": (4, 3)}, (4, 3, 8)),
    (OrthogonalConv2D, {"filters": 10, "kernel_size": 5}, (2, 1, 10)),
    (OrthogonalConv2D, {"filters": 8, "dilation_rate": (1, 2)}, (4, 5, 8)),
    (OrthogonalConv2D, {"filters": 12, "groups": 2}, (4, 3, 8)),
    (OrthogonalConv2D, {"filters": 8, "data_format": "channels_first"}, (8, 4, 3)),
    (OrthogonalConv2D, {"filters": 6, "kernel_size": 5, "strides": 2}, (4, 2, 9)),
    (
        OrthogonalConv2D,
        {"filters": 4, "kernel_size": (2, 5), "strides": (1, 3), "groups": 2},
        (2, 6, 8),
    ),
    (OrthogonalConv1D, {"filters": 9, "kernel_size": 6, "dilation_rate": 2}, (7, 4)),
    (OrthogonalConv1D, {"filters": 6, "data_format": "channels_first"}, (6, 5)),
    (OrthogonalConv1D, {"filters": 6, "kernel_size": 7, "strides": 2}, (4, 6)),
    (OrthogonalConv2DTranspose, {"filters": 9, "kernel_size": 4}, (4, 5, 8)),
    (
        OrthogonalConv2DTranspose,
        {"filters": 10, "kernel_size": (2, 3), "dilation_rate": 2, "groups": 2},
        (3, 2, 8),
    ),
    (
        OrthogonalConv2DTranspose,
        {"filters": 9, "kernel_size": 5, "strides": 2},
        (1, 3, 16),
    ),
    (
        OrthogonalConv2DTranspose,
        {"filters": 12, "strides": (1, 2), "kernel_size": 4, "groups": 2},
        (2, 3, 8),
    ),
]


FIRST = {"data_format": "channels_first"}
NORMALIZED = [
    ({}, (4, 5, 8)),
    ({**FIRST, "activation": "tanh", "affine": True}, (8, 4, 3)),
    ({"affine": True, "shrinkage": 0.5, "scale_by": "norm", "gain": 0.7}, (4, 5, 8)),
    ({"strides": 2, "kernel_size": 4, "groups": 2, "center": False}, (4, 6, 8)),
]
ADDITIVE = [
    ({}, (4, 5, 8)),
    ({**FIRST, "filter": "shift", "use_bias": False}, (8, 4, 3)),
    ({"kernel_size": (2, 3), "dilation_rate": (2, 1), "beta": 2}, (4, 5, 8)),
    ({"filter": "signed_haar", "activation": "softmax"}, (1, 2, 8)),
    ({"filter": "rotations", "activation": None, "kernel_size": 1}, (4, 3, 8)),
]


def name_of(case):
    kind, arguments, shape = case
    return f"{kind.__name__}-{'-'.join(map(str, arguments.values()))}-{shape}"


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def model_of(shape, *layers):
    """With no weight at its start."""
    model = keras.Sequential([keras.Input(shape), *layers])
    rng = np.random.default_rng(0)
    model.set_weights([moved(w, rng) for w in model.get_weights()])
    return model


def moved(weight, rng):
    """A little, but that an order of channels stays one, and a variance positive."""
    is_real = weight.dtype.kind == "f"
    return weight + 0.1 * abs(rng.normal(size=weight.shape)) if is_real else weight


def kinds(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


def check(model, atol=1e-5):
    """What it becomes computes the same, and needs nothing of this package."""
    plain = to_keras(model)
    assert "keras_bsnn" not in plain.to_json()
    x = drawn(3, *model.input_shape[1:])
    expected = keras.ops.convert_to_numpy(model(x))
    assert np.std(expected) > 1e-3
    assert_allclose(plain(x), expected, atol=atol)
    return plain


@pytest.mark.parametrize("padding", ["circular", "same"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_alone(case, padding):
    """And with what is merged into it, and what is merged into what comes before."""
    kind, arguments, shape = case
    last = keras.layers.Rescaling(3.0, 0.5)
    layer = kind(**arguments, padding=padding, activation=SHAPED)
    check(model_of(shape, keras.layers.Rescaling(0.5, 1.0), layer, last))


@pytest.mark.parametrize("padding", ["circular", "same"])
@pytest.mark.parametrize(("arguments", "shape"), NORMALIZED)
def test_batch_normalization_is_merged_into_the_kernel(arguments, shape, padding):
    """The statistics are those of a batch, which are no round numbers."""
    layer = BatchNormConv2D(8, padding=padding, momentum=0.5, **arguments)
    model = model_of(shape, layer)
    model(drawn(20, *shape), training=True)
    found = kinds(check(model))
    assert found.count("Conv2D") == 1 and "Rescaling" not in found


@pytest.mark.parametrize(("arguments", "shape"), ADDITIVE)
def test_an_additive_filter_is_a_sum_of_two_convolutions(arguments, shape):
    layer = ROAFConv2D(8, alpha=0.6, **arguments)
    found = kinds(check(model_of(shape, layer)))
    assert found.count("Conv2D") == 2 and found.count("Add") == 1


NETWORKS = {
    "bsnn": (models.bsnn_cnn, StiefelMuon(0.1)),
    "batchnorm": (models.batchnorm_cnn, StiefelMuon(0.05)),
    "roaf": (models.roaf_cnn, keras.optimizers.Adam(0.01)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_images(name):
    make, optimizer = NETWORKS[name]
    model = make(5, 8, input_shape=(8, 8, 1), seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    model.fit(drawn(96, 8, 8, 1), np.arange(96) % 10, verbose=0)
    plain = check(model)
    assert kinds(plain).count("Conv2D") >= 6
    assert plain.output_shape == (None, 10)


AROUND = ["Cropping2D", "Cropping2D", "Concatenate"] * 2


def test_a_circular_one_is_wrapped_and_then_convolved():
    layers = [OrthogonalConv2D(8, activation="gp_tanh") for _ in range(2)]
    model = model_of((4, 5, 8), *layers, keras.layers.GlobalAveragePooling2D())
    expected = [*AROUND, "Conv2D", *AROUND, "Conv2D", "Rescaling"]
    plain = check(model)
    assert kinds(plain) == [*expected, "GlobalAveragePooling2D"]
    padded = plain.layers[6].output
    assert padded.shape == (None, 6, 7, 8)


def test_a_shift_does_not_go_through_an_edge_of_zeros():
    """There the sum of the taps is another one. A scale goes through any edge."""
    layer = OrthogonalConv2D(8, padding="same", activation="tanh")
    assert kinds(check(model_of((4, 5, 8), layer))) == ["Conv2D"]
    for shift, expected in ((0.0, ["Conv2D"]), (1.0, ["Rescaling", "Conv2D"])):
        scaled = keras.layers.Rescaling(2.0, shift)
        layer = OrthogonalConv2D(8, padding="same")
        assert kinds(check(model_of((4, 5, 8), scaled, layer))) == expected
        pointwise = OrthogonalConv2D(8, 1, padding="same")
        scaled = keras.layers.Rescaling(2.0, shift)
        assert kinds(check(model_of((4, 5, 8), scaled, pointwise))) == ["Conv2D"]


def test_scales_of_channels():
    for groups in (1, 2):
        scaled = keras.layers.Rescaling(drawn(8).tolist(), drawn(8).tolist())
        layers = [
            OrthogonalConv2D(8, groups=groups),
            keras.layers.BatchNormalization(),
            OrthogonalConv2DTranspose(8, groups=groups),
        ]
        plain = check(model_of((4, 5, 8), scaled, *layers))
        assert kinds(plain) == [*AROUND, "Conv2D", *AROUND, "Conv2D"]


def test_a_transpose_with_strides_has_another_sum_at_each_pixel():
    scaled = keras.layers.Rescaling(2.0, 1.0)
    layer = OrthogonalConv2DTranspose(4, 4, 2)
    plain = check(model_of((2, 3, 8), scaled, layer))
    assert kinds(plain) == ["Rescaling", *AROUND, "Conv2DTranspose", "Cropping2D"]


def test_moves_of_axes_cancel_between_layers():
    options = {"data_format": "channels_first", "activation": SHAPED}
    stack = DepthStack(OrthogonalConv2D(8, **options), 2)
    first = OrthogonalConv2D(8, 4, 2, **options)
    found = kinds(check(model_of((4, 4, 6), first, stack)))
    assert [kind for kind in found if kind == "Permute"] == ["Permute"] * 2
    assert found[0] == found[-1] == "Permute"
    softmax = OrthogonalConv2D(8, data_format="channels_first", activation="softmax")
    check(model_of((8, 4, 3), softmax))


@pytest.mark.parametrize("activation", ["gp_tanh", SHAPED, "gp_relu", "gp_sin", None])
@pytest.mark.parametrize("padding", ["circular", "same"])
def test_stacks(activation, padding):
    block = OrthogonalConv2D(8, padding=padding, activation=activation)
    first = OrthogonalConv2D(8, 2, 2, padding=padding)
    head = [keras.layers.Flatten(), keras.layers.Dense(3)]
    plain = check(model_of((4, 6, 2), first, DepthStack(block, 3), *head))
    assert kinds(plain).count("Conv2D") == 4
    sequences = DepthStack(OrthogonalConv1D(8, 5, activation=activation), 3)
    assert kinds(check(model_of((6, 8), sequences))).count("Conv1D") == 3


def test_functional_models():
    inputs = keras.Input((4, 6, 8))
    shared = OrthogonalConv2D(8, activation="gp_tanh")
    both = keras.layers.add([shared(inputs), shared(keras.layers.ReLU()(inputs))])
    coarse = OrthogonalConv2D(16, 2, 2)(both)
    deep = DepthStack(OrthogonalConv2D(16, activation=SHAPED), 2)(coarse)
    fine = OrthogonalConv2DTranspose(8, 4, 2)(deep)
    outputs = keras.layers.concatenate([fine, both])
    check(keras.Model(inputs, outputs))


def test_half_precision():
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    layer = OrthogonalConv2D(8, activation="gp_tanh", dtype=policy)
    plain = check(model_of((4, 5, 8), layer), atol=0.05)
    assert {layer.compute_dtype for layer in plain.layers[1:]} == {"float32"}


@pytest.mark.slow
def test_they_load_where_this_package_is_not_installed(tmp_path):
    stack = DepthStack(OrthogonalConv2D(8, activation=SHAPED), 2)
    layers = [OrthogonalConv2D(8, 4, 2), stack, OrthogonalConv2DTranspose(4, 4, 2)]
    model = model_of((4, 6, 4), *layers)
    to_keras(model).save(tmp_path / "plain.keras")
    np.save(tmp_path / "x.npy", x := drawn(3, 4, 6, 4))
    code = """if True:
        import sys
        sys.modules["keras_bsnn"] = None  # an import of it fails
        import keras, numpy as np
        y = keras.models.load_model("plain.keras")(np.load("x.npy"))
        np.save("y.npy", keras.ops.convert_to_numpy(y))
    """
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert_allclose(np.load(tmp_path / "y.npy"), model(x), atol=1e-5)


def test_many_layers_are_parts_of_a_model(monkeypatch):
    monkeypatch.setattr(_writing, "LONGEST", 3)
    stack = DepthStack(OrthogonalConv2D(8, 1, activation=SHAPED), 10)
    plain = check(model_of((2, 2, 8), stack))
    assert kinds(plain) == ["Functional"] * 3
    inner = plain.layers[1].layers[1]
    assert kinds(inner) == ["Conv2D", "Activation", "Rescaling", "Add", "Conv2D"]


def test_what_no_convolution_equals():
    bounce = OrthogonalConv2D(8, padding="bounce", name="mirror")
    with pytest.raises(ValueError, match=r"`padding`.*to equal 'mirror'.*'bounce'"):
        to_keras(model_of((4, 4, 8), bounce))
    with pytest.raises(ValueError, match=r"`padding`.*'bounce'"):
        block = OrthogonalConv2D(8, padding="bounce")
        to_keras(model_of((4, 4, 8), DepthStack(block, 2)))
    patches = OrthogonalConv2D(8, 2, 2, padding="bounce")
    assert kinds(check(model_of((4, 4, 2), patches))) == ["Conv2D"]


def test_images_of_unknown_size():
    model = model_of((None, None, 8), OrthogonalConv2D(8))
    with pytest.raises(ValueError, match=r"known size.*\(None, None, 8\)"):
        to_keras(model)
    layers = [OrthogonalConv2D(8, padding="same"), OrthogonalConv2D(4, 2, 2)]
    layers += [OrthogonalConv2DTranspose(8, 4, 2, padding="same")]
    model = model_of((None, None, 8), *layers)
    x = drawn(2, 4, 6, 8)
    assert_allclose(to_keras(model)(x), model(x), atol=1e-5)
