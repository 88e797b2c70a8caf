import keras
import numpy as np
import pytest
from arrays import assert_allclose
from draws import normal, property_of, rarely, seeds
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_checker import check_layer

from keras_bsnn import _backend, export, layers
from keras_bsnn.layers import DepthStack, OrthogonalEinsumDense

# Of equations whose output is like their input: mixing of features, of heads, of
# positions by head; with the shape of an input, the axes of a bias and, where an
# ellipsis leaves some out, the shape of the output.
MIXING = {
    "ab,bc->ac": ((6,), "c"),
    "...x,xy->...y": ((3, 6), "y", (6,)),
    "abc,bcde->ade": ((2, 3), "de"),
    "abc,bcd->abd": ((2, 6), "bd"),
    "abcd,cde->abce": ((3, 2, 4), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("equation", ["ab,bc->ac", "abc,cde->abde"])
def test_it_is_a_good_layer(equation, tmp_path):
    inputs, outputs = {"ab,bc->ac": ((6,), (5,))}.get(equation, ((3, 6), (3, 2, 4)))
    arguments = {
        "equation": equation,
        "output_shape": outputs,
        "activation": "gp_tanh",
        "bias_axes": equation[-1],
    }
    check_layer(OrthogonalEinsumDense, arguments, inputs, outputs, tmp_path)


def drawn(equation, seed, activation="gp_tanh"):
    """A layer with a bias that is not zero, and an input."""
    shape, bias_axes, *outputs = MIXING[equation]
    layer = OrthogonalEinsumDense(
        equation,
        *(outputs or [shape]),
        activation,
        bias_axes,
        bias_initializer="random_normal",
    )
    return layer, normal((2, *shape), seed, "float32")


@property_of(layers.OrthogonalEinsumDense)
@rarely
@given(seeds, st.sampled_from([*MIXING]))
def test_its_kernel_is_orthogonal_and_it_computes_what_einsum_dense_computes(
    seed, equation
):
    keras.utils.set_random_seed(seed)
    layer, x = drawn(equation, seed)
    y = layer(x)
    _, bias_axes, *_ = MIXING[equation]
    outputs = layer.partial_output_shape
    linear = OrthogonalEinsumDense(equation, outputs)
    norms = [np.linalg.norm(ops.convert_to_numpy(z)) for z in (x, linear(x))]
    np.testing.assert_allclose(*norms, rtol=1e-4)  # a square matrix is an isometry
    plain = keras.layers.EinsumDense(equation, outputs, layer.activation, bias_axes)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    assert_allclose(y, plain(x), atol=1e-5)


@pytest.mark.parametrize("depth", [3, 66])
@pytest.mark.parametrize("equation", MIXING)
def test_its_own_gradient_in_a_stack(equation, depth):
    """Against the rule from the call of an activation that is not in a list."""
    layer, x = drawn(equation, 0)
    known = layer.activation
    found = []
    for activation in (known, lambda x: known(x)):
        stack = DepthStack(drawn(equation, 0, activation)[0], depth)
        stack.build(x.shape)
        if found:
            stack.set_weights(found[0])
        weights = stack.trainable_variables

        def loss(tensors, stack=stack, weights=weights):
            x, *values = tensors
            with keras.StatelessScope(zip(weights, values, strict=True)):
                return ops.mean(ops.square(stack(x)))

        values = [ops.convert_to_tensor(x), *map(_backend.read, weights)]
        found += [stack.get_weights(), _backend.gradients(loss, values)]
    for ours, theirs in zip(found[1], found[3], strict=True):
        assert_allclose(ours, theirs, atol=1e-5)


def test_a_step_keeps_every_matrix_orthogonal():
    """Those of a batch, too: one for each head."""
    layer, x = drawn("abcd,cde->abce", 0)
    model = keras.Sequential([keras.Input(x.shape[1:]), DepthStack(layer, 3)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    before = model.get_weights()[0]
    model.fit(x, 0 * x, verbose=0)
    (kernel,) = model.get_weights()
    assert np.abs(kernel - before).max() > 1e-3
    gram = np.einsum("lcde,lcdf->lcef", kernel, kernel)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(4), gram.shape), atol=1e-5)


def test_it_is_exported_as_einsum_dense():
    layer, x = drawn("abc,bcd->abd", 0)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    plain = export.to_keras(model)
    assert type(plain.layers[1]) is keras.layers.EinsumDense
    np.testing.assert_allclose(
        plain.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize("equation", ["ab->a", "ab,cb->ab", 3, "ab,b->a"])
def test_equations_that_have_no_matrix(equation):
    with pytest.raises(ValueError, match="`equation`"):
        OrthogonalEinsumDense(equation, 4)
