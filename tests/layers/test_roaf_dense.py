import keras
import numpy as np
import pytest
from layer_checker import check_layer

from keras_bsnn import _backend, diagnostics, models
from keras_bsnn.layers import DepthStack, ROAFCell, ROAFDense, _filters
from keras_bsnn.ops import roaf

FILTERS = [*_filters.FILTERS]
WITHOUT_WEIGHTS = ("shift", "identity")
IS_JAX = keras.backend.backend() == "jax"  # slow without jit


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"units": 6, "alpha": 0.9},
        {"units": 5, "alpha": 0.5, "filter": "rotations", "activation": "gp_relu"},
        {"units": 6, "alpha": 0.9, "filter": "permutation", "beta": 0.5},
        {
            "units": 5,
            "alpha": 0.9,
            "kernel_regularizer": "l1",
            "bias_regularizer": "l2",
        },
        {
            "units": 6,
            "alpha": 0.2,
            "filter": "signed_haar",
            "shared_filter": True,
            "activation": "softmax",
            "use_bias": False,
        },
    ],
)
def test_it_is_a_good_layer(arguments, tmp_path):
    shape = (arguments["units"],)
    check_layer(ROAFDense, arguments, shape, shape, tmp_path)


@pytest.mark.parametrize("units", [6, 7])
@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_orthogonal(name, units):
    """Seen in what they do to the unit vectors; the adjoint is the transpose."""
    filter = _filters.get(name)
    rng = np.random.RandomState(0)
    drawn = [] if filter.shape(units) is None else [*filter.draw(units, 1, rng)]
    drawn += filter.common(units, rng)
    identity = np.eye(units, dtype="float32")
    matrix = np.asarray(filter.apply(identity, *drawn))
    np.testing.assert_allclose(matrix @ matrix.T, identity, atol=1e-6)
    np.testing.assert_array_equal(filter.adjoint(identity, *drawn), matrix.T)
    if name != "identity":
        assert np.abs(matrix - identity).max() > 0.5


def test_haar_filters_are_of_the_haar_law():
    """Drawn independently; the trace of a Haar matrix has mean 0 and variance 1."""
    filter = _filters.get("haar")
    q = filter.draw(5, 20_000, np.random.RandomState(0)).astype("float64")
    traces = np.trace(q, axis1=1, axis2=2)
    assert abs(traces.mean()) < 4 / len(q) ** 0.5
    assert abs(traces.var() - 1) < 4 * (2 / len(q)) ** 0.5
    assert abs(np.corrcoef(traces[1:], traces[:-1])[0, 1]) < 4 / len(q) ** 0.5


@pytest.mark.parametrize("layer", [ROAFDense, ROAFCell])
def test_each_layer_has_kernels_and_filters_of_its_own(layer):
    """Of variance 1 / units, and the same again only for the same global seed."""

    def weights():
        made = layer(50, 0.5)
        made.build((None, 50))
        return [np.asarray(w) for w in made.weights if len(w.shape) == 2]

    keras.utils.set_random_seed(1)
    first, second = weights(), weights()
    keras.utils.set_random_seed(1)
    again = weights()
    for a, b, c in zip(first, second, again, strict=True):
        assert np.abs(a - b).max() > 0.1
        np.testing.assert_array_equal(a, c)
        assert abs(50 * a.var() - 1) < 0.15


def trained(layers, x, jit_compile):
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit_compile)
    model.fit(x, -x, batch_size=len(x), epochs=2, verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shared"),
    [
        *((name, False) for name in FILTERS),
        *((name, True) for name in FILTERS if name not in WITHOUT_WEIGHTS),
    ],
)
def test_a_stack_is_its_layers(name, shared):
    """Outputs, and the steps of training, of the rule and of differentiation."""
    x = np.random.default_rng(0).normal(size=(9, 3, 7)).astype("float32")
    block = ROAFDense(7, 0.7, filter=name, shared_filter=shared)
    stack = DepthStack(block, 3)
    before = np.asarray(stack(x))
    layers = [stack.layer_at(i) for i in range(3)]
    one, many = trained([stack], x, True), trained(layers, x, False)
    expected = many.predict(x, verbose=0)
    np.testing.assert_allclose(one.predict(x, verbose=0), expected, atol=1e-5)
    assert np.abs(expected - before).max() > 1e-3
    has_own = not shared and name not in WITHOUT_WEIGHTS
    assert len(stack.non_trainable_weights) == has_own
    if has_own:
        filters = np.asarray(stack.non_trainable_weights[0])
        assert np.all(filters[0] == np.asarray(layers[0].non_trainable_weights[0]))
        assert np.any(filters[0] != filters[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["haar", "shift"])
def test_a_frozen_stack_stays_and_passes_gradients_on(name):
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    stack = DepthStack(ROAFDense(4, 0.5, filter=name, trainable=False), 3)
    model = trained([keras.layers.Dense(4), stack], x, True)
    first, same = np.asarray(model.layers[0].kernel), stack.get_weights()
    model.fit(x, -x, epochs=2, verbose=0)
    assert np.abs(np.asarray(model.layers[0].kernel) - first).max() > 1e-3
    for before, after in zip(same, stack.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shared", "checkpoint_every"),
    [
        ("haar", False, 3),
        ("haar", True, None),
        ("signed_haar", False, None),
        ("signed_haar", True, 3),
    ],
)
def test_a_stack_is_saved_with_its_filters(name, shared, checkpoint_every, tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    block = ROAFDense(4, 0.5, filter=name, shared_filter=shared)
    stack = DepthStack(block, 6, checkpoint_every=checkpoint_every)
    model = trained([stack], x, IS_JAX)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "c"), [(10, 1.0), (10, 2.0), (1000, 1.0), (10_000, 2.0)]
)
def test_singular_values_are_within_the_bounds(depth, c):
    """And near exp(-c), the nearer the deeper the network."""
    units = 8
    stack = DepthStack(ROAFDense(units, roaf.alpha_for_depth(depth, c)), depth)
    stack.build((None, units))
    x = np.random.default_rng(0).normal(size=(2, units)).astype("float32")
    found = diagnostics.check_jacobian(stack, x)
    assert found.low <= found.smallest <= found.largest <= found.high
    assert found.holds
    if depth >= 1000:
        np.testing.assert_allclose(found[1:3], np.exp(-c), rtol=0.1)


@pytest.mark.parametrize("beta", [None, 0.5])
def test_the_check_of_one_layer(beta):
    layer = ROAFDense(4, 0.9, beta=beta)
    layer.build((None, 4))
    kernel = 0.1 * np.eye(4, dtype="float32")
    layer.kernel.assign(kernel)
    found = diagnostics.check_jacobian(layer, np.zeros((1, 4)))
    reach = 0.1 * (beta or 0.1)
    assert found.low == pytest.approx(0.9 - reach)
    assert found.high == pytest.approx(0.9 + reach)
    assert found.holds
    # With a slope that is given as too small, they are outside.
    assert not diagnostics.check_jacobian(layer, np.zeros((1, 4)), lipschitz=0).holds


def test_the_check_of_other_layers():
    with pytest.raises(ValueError, match="`layer` must be a built ROAFDense"):
        diagnostics.check_jacobian(keras.layers.Dense(3), np.zeros((1, 3)))


def test_bfloat16_does_not_lose_alpha():
    """1 - 1e-3 is 1 in bfloat16, with which nothing would be forgotten."""
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    stacks = [
        DepthStack(ROAFDense(8, 0.999, dtype=dtype), 3000)
        for dtype in ("float32", "mixed_bfloat16")
    ]
    for stack in stacks:
        stack.build(x.shape)
    stacks[1].set_weights(stacks[0].get_weights())
    exact, rounded = (np.asarray(stack(x)).astype("float32") for stack in stacks)
    assert np.linalg.norm(rounded - exact) < 0.05 * np.linalg.norm(exact)


def test_gradients_at_the_first_and_the_last_of_many_layers():
    """Their ratio is bounded by the singular values of what is between."""
    depth = 5000
    model = models.roaf_mlp(depth, 16, input_shape=(16,), seed=0)
    x = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
    kernels = model.layers[-2].trainable_variables[0]

    def loss(values):
        with keras.StatelessScope([(kernels, values[0])]):
            return keras.ops.mean(keras.ops.square(model(x, training=True)))

    (gradient,) = _backend.gradients(loss, [_backend.read(kernels)])
    norms = np.linalg.norm(np.asarray(gradient), axis=(1, 2))
    norms_of_kernels = np.linalg.svd(np.asarray(kernels), compute_uv=False)[:, 0]
    low, high = roaf.jacobian_bounds(1 - 1 / depth, 1.0, norms_of_kernels, depth)
    # The backward signal by these bounds, the forward signal by exp(-1) at least.
    assert low**2 < norms[0] / norms[-1] < high / low
    assert norms.max() < 10 * norms.min()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"units": 0, "alpha": 0.5}, "`units` must be an integer >= 1"),
        ({"units": 4, "alpha": 1.5}, "`alpha` must be a number in"),
        ({"units": 4, "alpha": 0.5, "beta": "1"}, "`beta` must be a number or None"),
        ({"units": 4, "alpha": 0.5, "filter": "none"}, "`filter` must be one of"),
        ({"units": 4, "alpha": 0.5, "filter_seed": 1.0}, "`filter_seed` must be an"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        ROAFDense(**arguments)


def test_wrong_inputs():
    with pytest.raises(ValueError, match="expected axis -1"):
        ROAFDense(4, 0.5)(np.ones((2, 3), "float32"))
