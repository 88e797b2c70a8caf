import keras
import numpy as np
import pytest
from layer_checker import check_layer

from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import OrthogonalDense


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "input_shape", "output_shape"),
    [
        ({"units": 6, "activation": "gp_tanh"}, (6,), (6,)),
        ({"units": 3, "use_bias": False}, (8,), (3,)),
        ({"units": 9, "activation": "gelu"}, (2, 4), (2, 9)),
        (
            {
                "units": 5,
                "kernel_constraint": Orthogonal("qr"),
                "kernel_initializer": HaarOrthogonal(seed=1),
                "kernel_regularizer": "l1",
                "bias_regularizer": "l2",
                "bias_constraint": "non_neg",
            },
            (5,),
            (5,),
        ),
        ({"units": 4, "kernel_constraint": None}, (4,), (4,)),
    ],
)
def test_it_is_a_good_layer(arguments, input_shape, output_shape, tmp_path):
    check_layer(OrthogonalDense, arguments, input_shape, output_shape, tmp_path)


def test_it_computes_what_dense_computes():
    x = np.random.default_rng(0).normal(size=(3, 7)).astype("float32")
    ours, theirs = OrthogonalDense(5, "tanh"), keras.layers.Dense(5, "tanh")
    ours.build(x.shape), theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_model_that_fit_builds(jit_compile):
    model = keras.Sequential([OrthogonalDense(4), OrthogonalDense(4)])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 4), "float32"), verbose=0)
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    for layer in model.layers:
        layer.assert_orthogonal()


def test_impulse_response_is_an_isometry():
    """What the identity becomes is the matrix that the layer applies."""
    for units in (4, 9, 20):
        response = OrthogonalDense(units)(np.eye(9, dtype="float32"))
        singular_values = np.linalg.svd(response, compute_uv=False)
        np.testing.assert_allclose(singular_values, 1, atol=1e-5)


def test_assert_orthogonal():
    layer = OrthogonalDense(4, name="first")
    layer.build((None, 4))
    layer.assert_orthogonal()
    layer.set_weights([1.1 * np.eye(4), np.zeros(4)])
    layer.assert_orthogonal(eps=0.3)
    with pytest.raises(AssertionError, match=r"'first' is not orthogonal.*0\.21"):
        layer.assert_orthogonal()
    layer.set_weights([np.full((4, 4), np.nan), np.zeros(4)])
    with pytest.raises(AssertionError, match="inf"):
        layer.assert_orthogonal()


def test_it_passes_masks_on():
    x, mask = np.ones((2, 3, 4), "float32"), np.array([[True, False, True]] * 2)
    assert OrthogonalDense(4).compute_mask(x, mask) is mask


@pytest.mark.parametrize("units", [0, -1, 2.5, "4", None])
def test_bad_units(units):
    with pytest.raises(ValueError, match="`units` must be an integer >= 1"):
        OrthogonalDense(units)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "nope"}, "`activation`.*'nope'"),
        ({"kernel_initializer": "nope"}, "nope"),
        ({"kernel_constraint": "nope"}, "nope"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_unknown_identifiers(arguments, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalDense(4, **arguments)


def test_integer_inputs():
    with pytest.raises(ValueError, match=r"floating point.*dtype=int32"):
        OrthogonalDense(4)(keras.ops.ones((2, 4), "int32"))
    model = keras.Sequential([keras.Input((4,), dtype="uint8"), OrthogonalDense(4)])
    with pytest.raises(ValueError, match="floating point"):
        model.predict(np.ones((2, 4), "uint8"), verbose=0)


def test_activity_regularizer():
    """Not in the checker: Keras cannot add it to a loss under mixed_bfloat16."""
    regularizer = keras.regularizers.L2(0.5)
    layer = OrthogonalDense(3, activity_regularizer=regularizer)
    y = layer(np.ones((2, 3), "float32"))
    of_keras = keras.layers.Activation("linear", activity_regularizer=regularizer)
    of_keras(y)
    np.testing.assert_allclose(layer.losses[0], of_keras.losses[0], rtol=1e-5)
    assert of_keras.losses[0] > 0.1


def test_inputs_of_one_axis_or_of_the_wrong_size():
    with pytest.raises(ValueError, match="min_ndim=2"):
        OrthogonalDense(4)(np.ones(4, "float32"))
    layer = OrthogonalDense(4)
    layer.build((None, 4))
    with pytest.raises(ValueError, match="expected axis -1 of input shape"):
        layer(np.ones((2, 5), "float32"))
    with pytest.raises(ValueError, match="last axis"):
        OrthogonalDense(4).build((None, None))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has ragged tensors"
)
def test_ragged_inputs():
    import tensorflow as tf

    ragged = tf.ragged.constant([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], ragged_rank=1)
    with pytest.raises(ValueError, match="ragged"):
        OrthogonalDense(2)(ragged)


def test_what_would_break_orthogonality_silently_raises():
    layer = OrthogonalDense(4)
    layer.build((None, 4))
    with pytest.raises(AttributeError):
        layer.enable_lora(2)
    with pytest.raises(NotImplementedError):
        layer.quantize("int8")
