import keras
import numpy as np
import pytest
from arrays import array

from keras_bsnn import manifolds
from keras_bsnn.callbacks import retract
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.manifolds import Stiefel
from keras_bsnn.optimizers import Stiefel as StiefelOptimizer
from keras_bsnn.optimizers import StiefelMuon

IS_JAX = keras.backend.backend() == "jax"  # which is slow without XLA
PATCHES = Stiefel(rows=(-4, -3, -2))  # a convolution's kernel, by what it multiplies
GROUPS = Stiefel(rows=(-3,), columns=(-1,))  # the axis between them counts groups
TURNED = Stiefel(rows=(-1,), columns=(-3, -2))
SHAPES = {
    Stiefel(): (2, 5, 3),
    PATCHES: (2, 2, 2, 3, 4),
    GROUPS: (4, 3, 4),
    TURNED: (2, 3, 2, 4),
}


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def reference(manifold, w):
    """The matrices of a weight, entry by entry."""
    rank = w.ndim
    rows, columns = ([rank + a for a in x] for x in (manifold.rows, manifold.columns))
    batch = [axis for axis in range(rank) if axis not in rows + columns]
    sizes = [np.prod([w.shape[a] for a in x]) for x in (rows, columns)]
    found = np.zeros((*(w.shape[a] for a in batch), *sizes), w.dtype)
    for index in np.ndindex(*w.shape):
        place = tuple(index[a] for a in batch)
        for axes in (rows, columns):
            flat = [index[a] for a in axes], [w.shape[a] for a in axes]
            place += (np.ravel_multi_index(*flat),)
        found[place] = w[index]
    return found


@pytest.mark.parametrize("manifold", SHAPES)
def test_matrices_of_a_weight(manifold):
    w = draw(SHAPES[manifold])
    expected = reference(manifold, w)
    matrices = manifold.matrices(w)
    assert isinstance(matrices, np.ndarray)
    np.testing.assert_array_equal(matrices, expected)
    tensor = manifold.matrices(keras.ops.convert_to_tensor(w))
    np.testing.assert_array_equal(tensor, expected)
    np.testing.assert_array_equal(manifold.from_matrices(matrices, w.shape), w)
    np.testing.assert_array_equal(manifold.from_matrices(tensor, w.shape), w)
    assert manifold.count(w.shape) == np.prod(expected.shape[:-2])


@pytest.mark.parametrize("manifold", SHAPES)
def test_what_is_sampled_is_on_the_manifold_and_comes_back_to_it(manifold):
    shape = SHAPES[manifold]
    w = manifold.sample(shape, seed=3)
    assert tuple(w.shape) == shape
    errors = np.asarray(manifold.error(w))
    assert errors.shape == reference(manifold, np.asarray(w)).shape[:-2]
    assert errors.max() < 1e-5
    for moved in (w + 0.05 * draw(shape), 2 * w):
        for back in (manifold.retract, manifold.nearest, Orthogonal(manifold=manifold)):
            near = back(keras.ops.convert_to_tensor(moved))
            assert tuple(near.shape) == shape
            assert np.max(np.asarray(manifold.error(near))) < 1e-5
    np.testing.assert_allclose(manifold.nearest(2 * w), w, atol=1e-5)
    near = manifold.retract(w + 1e-4 * draw(shape), tolerance=1e-2)
    np.testing.assert_array_equal(near, w + 1e-4 * draw(shape))


@pytest.mark.parametrize("manifold", SHAPES)
def test_a_projection_is_tangent(manifold):
    shape = SHAPES[manifold]
    w = np.asarray(manifold.sample(shape, seed=3))
    t = np.asarray(manifold.project(w, draw(shape)))
    np.testing.assert_allclose(manifold.project(w, t), t, atol=1e-5)
    # To first order in the step, the error stays 0.
    sizes = [np.max(np.asarray(manifold.error(w + h * t))) for h in (2e-2, 1e-2)]
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.05)


def test_an_initializer_and_a_constraint_keep_their_manifold():
    for made in (Orthogonal(manifold=PATCHES), HaarOrthogonal(2.0, 7, PATCHES)):
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(made)
        )
        assert again.manifold == made.manifold == PATCHES
        assert again.get_config() == made.get_config()
    w = HaarOrthogonal(2.0, 7, PATCHES)((3, 3, 2, 4))
    assert np.max(np.asarray(PATCHES.error(w / 2))) < 1e-5
    assert Orthogonal().manifold == HaarOrthogonal().manifold == Stiefel()


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_a_convolution_of_keras_is_on_a_manifold(stacked):
    """Also in a stack, whose axis is in front; and its optimizers turn it."""
    block = keras.layers.Conv2D(
        4,
        3,
        padding="same",
        kernel_initializer=HaarOrthogonal(manifold=PATCHES),
        kernel_constraint=Orthogonal(manifold=PATCHES),
    )
    layer = DepthStack(block, 3) if stacked else block
    model = keras.Sequential([keras.Input((5, 5, 4)), layer])
    x = draw((16, 5, 5, 4))
    for optimizer in (StiefelMuon(0.1), StiefelOptimizer(keras.optimizers.Muon(0.1))):
        before = model.get_weights()[0]
        model.compile(optimizer, "mse", jit_compile=IS_JAX)
        model.fit(x, 2 * x, batch_size=8, verbose=0)
        kernel = layer.trainable_variables[0]
        assert np.max(array(PATCHES.error(kernel))) < 1e-5
        assert np.abs(model.get_weights()[0] - before).max() > 1e-3
    model.set_weights([1.5 * w for w in model.get_weights()])
    with pytest.warns(UserWarning, match="of the orthogonal kernels had to be"):
        retract(model)
    assert np.max(array(PATCHES.error(kernel))) < 1e-6


def test_stacks_of_stacks():
    stack = DepthStack(DepthStack(OrthogonalDense(4), 3), 2)
    model = keras.Sequential([keras.Input((4,)), stack])
    kernel, bias = stack.trainable_variables
    assert [manifolds.stacked_axes(v) for v in (kernel, bias)] == [2, 2]
    assert manifolds.of(kernel) == Stiefel() and manifolds.of(bias) is None
    optimizer = StiefelMuon()
    optimizer.build(model.trainable_variables)
    assert optimizer._depth == 6
    model.set_weights([1.5 * w for w in model.get_weights()])
    with pytest.warns(UserWarning, match="^6 of the orthogonal kernels"):
        retract(model)
    assert np.max(array(Stiefel().error(kernel))) < 1e-6


def test_a_constraint_of_a_user_offers_a_manifold():
    class Halved(keras.constraints.Constraint):
        manifold = Stiefel()

        def __call__(self, w):
            return self.manifold.retract(w)

    layer = keras.layers.Dense(3, kernel_constraint=Halved())
    layer.build((None, 3))
    assert [v is layer.kernel for v, _ in manifolds.constrained(layer.weights)] == [
        True
    ]
    stack = DepthStack(keras.layers.Dense(3, kernel_constraint=Halved()), 2)
    stack.build((None, 3))
    assert manifolds.of(stack.trainable_variables[0]) == Stiefel()


@pytest.mark.parametrize("axes", [(), 3, (0,), (-1, 1), ("a",), (True,), None])
@pytest.mark.parametrize("name", ["rows", "columns"])
def test_bad_axes(name, axes):
    with pytest.raises(ValueError, match=f"`{name}` must be a tuple of at least one"):
        Stiefel(**{name: axes})


def test_axes_that_are_there_twice():
    with pytest.raises(ValueError, match=r"`columns` must be axes .* rows=\(-2, -1\)"):
        Stiefel(rows=(-2, -1))


def test_a_weight_with_too_few_axes():
    with pytest.raises(ValueError, match=r"at least 4 axes.*\(3, 3, 2\)"):
        PATCHES.matrices(np.zeros((3, 3, 2)))


@pytest.mark.parametrize("bad", [(-2,), {"rows": 3}, {"lines": [-2]}, "stiefel"])
@pytest.mark.parametrize("make", [Orthogonal, HaarOrthogonal])
def test_what_is_no_manifold(make, bad):
    with pytest.raises(ValueError, match=r"`manifold` must be .*Stiefel"):
        make(manifold=bad)


def test_it_is_a_value():
    assert Stiefel([-2], [-1]) == Stiefel() and hash(Stiefel([-2])) == hash(Stiefel())
    with pytest.raises(AttributeError):
        Stiefel().rows = (-1,)
