import math
import time

import keras
import numpy as np
import pytest
from backends import HAS_FLOAT64
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from keras_bsnn.ops import _integrals, _quadrature, _shaping, gaussian


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal_cdf(x):
    return 0.5 * special.erfc(-x / np.sqrt(2))


def normal_density(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


SELU = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772

# Each function, its derivative, and its kinks: what the code under test must find.
FUNCTIONS = {
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, []),
    "relu": (lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0), [0]),
    "leaky relu .01": (
        lambda x: np.where(x > 0, x, 0.01 * x),
        lambda x: np.where(x > 0, 1, 0.01),
        [0],
    ),
    "elu": (
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, 1, np.exp(np.minimum(x, 0))),
        [0],
    ),
    "selu": (
        lambda x: SELU * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
        lambda x: SELU * np.where(x > 0, 1, SELU_ALPHA * np.exp(np.minimum(x, 0))),
        [0],
    ),
    "gelu, sigmoid form": (
        lambda x: x * sigmoid(1.702 * x),
        lambda x: (
            sigmoid(1.702 * x)
            + 1.702 * x * sigmoid(1.702 * x) * (1 - sigmoid(1.702 * x))
        ),
        [],
    ),
    "gelu": (
        lambda x: x * normal_cdf(x),
        lambda x: normal_cdf(x) + x * normal_density(x),
        [],
    ),
    "silu": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
        [],
    ),
    "sin": (np.sin, np.cos, []),
    "softplus": (lambda x: np.logaddexp(0, x), sigmoid, []),
    "softsign": (
        lambda x: x / (1 + np.abs(x)),
        lambda x: 1 / (1 + np.abs(x)) ** 2,
        [0],
    ),
    "hard tanh": (
        lambda x: np.clip(x, -1, 1),
        lambda x: 1.0 * (np.abs(x) < 1),
        [-1, 1],
    ),
    "soft shrink": (
        lambda x: x - np.clip(x, -0.5, 0.5),
        lambda x: 1.0 * (np.abs(x) > 0.5),
        [-0.5, 0.5],
    ),
    "relu at 1/3": (
        lambda x: np.maximum(x - 1 / 3, 0),
        lambda x: 1.0 * (x > 1 / 3),
        [1 / 3],
    ),
    "abs at pi/7": (
        lambda x: np.abs(x - np.pi / 7),
        lambda x: np.sign(x - np.pi / 7),
        [np.pi / 7],
    ),
    "two kinks": (
        lambda x: np.clip(x, -0.7123, 1.4142) + np.sin(x),
        lambda x: 1.0 * ((x > -0.7123) & (x < 1.4142)) + np.cos(x),
        [-0.7123, 1.4142],
    ),
    "steep tanh": (
        lambda x: np.tanh(15 * (x - 0.1)),
        lambda x: 15 / np.cosh(np.clip(15 * (x - 0.1), -300, 300)) ** 2,
        [],
    ),
}

# f: a, b plus, b minus, slope plus, slope minus: bsnn.md's tables, to their digits.
TABLE = {
    "tanh": (1.46741, 0.38854, -0.38854, 0.3915, 0.3915),
    "relu": (1.41421, 0.0, -1.12838, 1.0, 0.3634),
    "leaky relu .01": (1.41414, 0.0, -1.11704, 1.0, 0.3761),
    "elu": (1.22343, 0.07422, -0.46699, 0.8838, 0.7106),
    "selu": (0.96603, 0.25845, -0.25845, 0.7747, 0.6860),
    "gelu, sigmoid form": (1.49146, 0.06748, -0.90965, None, None),
    "gelu": (1.48111, 0.07388, -0.90951, 1.1135, 0.4972),
    "silu": (1.62332, 0.08289, -0.75371, 1.1465, 0.6701),
    "sin": (1.32725, 0.48827, -0.48827, None, None),
}


def integral(function, kinks):
    """Gauss-Legendre with 128 nodes on each piece of [-12, 12] between the kinks."""
    edges = np.unique([-12, -6, -3, *np.linspace(-2, 2, 21), 3, 6, 12, *kinks])
    x, w = np.polynomial.legendre.leggauss(128)
    half = np.diff(edges)[:, None] / 2
    nodes = (edges[1:] + edges[:-1])[:, None] / 2 + half * x
    return np.sum(half * w * normal_density(nodes) * function(nodes))


def test_the_rule_integrates_polynomials_exactly():
    x, w = _quadrature.NODES, _quadrature.NODE_WEIGHTS
    assert x.dtype == w.dtype == np.float64
    for power in range(32):
        exact = 2 / (power + 1) if power % 2 == 0 else 0
        assert abs(np.sum(w * x**power) - exact) < 1e-15 * 8
    np.testing.assert_allclose(_quadrature.DERIVATIVE @ x**7, 7 * x**6, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_moments_agree_with_an_integral_that_knows_the_kinks(name):
    f, df, kinks = FUNCTIONS[name]
    expected = [
        integral(g, kinks) for g in (f, lambda x: f(x) ** 2, df, lambda x: df(x) ** 2)
    ]
    np.testing.assert_allclose(gaussian.moments(f), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:.*no stable")
@pytest.mark.parametrize("root", ["plus", "minus", "stable"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_normalized_second_moments_are_one(name, root):
    f, df, kinks = FUNCTIONS[name]
    a, b = gaussian.gp_constants(f, root)
    assert abs(integral(lambda x: (a * f(x) + b) ** 2, kinks) - 1) < 1e-9
    assert abs(integral(lambda x: (a * df(x)) ** 2, kinks) - 1) < 1e-9


@pytest.mark.parametrize("name", TABLE)
def test_constants_of_the_paper(name):
    f = FUNCTIONS[name][0]
    a, plus, minus, slope_plus, slope_minus = TABLE[name]
    # The table holds five decimals, once rounded and once cut.
    np.testing.assert_allclose(
        [*gaussian.gp_constants(f, "plus"), gaussian.gp_constants(f, "minus")[1]],
        [a, plus, minus],
        atol=1e-5,
    )
    for root, slope in (("plus", slope_plus), ("minus", slope_minus)):
        if slope is not None:
            a, b = gaussian.gp_constants(f, root)
            found = gaussian.length_slope(lambda x, a=a, b=b: a * f(x) + b)
            assert abs(found - slope) <= 5.1e-5


@pytest.mark.parametrize("name", ["tanh", "relu", "elu", "selu", "gelu", "silu"])
def test_a_name_stands_for_the_function_of_keras(name):
    tolerance = 1e-10 if HAS_FLOAT64 else 1e-5
    np.testing.assert_allclose(
        gaussian.gp_constants(name, "minus"),
        gaussian.gp_constants(FUNCTIONS[name][0], "minus"),
        atol=tolerance,
    )


def test_a_callable_of_keras_ops_is_like_one_of_numpy():
    of_ops = gaussian.gp_constants(lambda x: keras.ops.sin(x) + 0.1 * x, "plus")
    of_numpy = gaussian.gp_constants(lambda x: np.sin(x) + 0.1 * x, "plus")
    np.testing.assert_allclose(of_ops, of_numpy, atol=1e-10 if HAS_FLOAT64 else 1e-5)


def test_a_layer_is_like_its_function():
    layer = keras.layers.LeakyReLU(negative_slope=0.25)
    expected = gaussian.moments(lambda x: np.where(x > 0, x, 0.25 * x))
    tolerance = 1e-10 if HAS_FLOAT64 else 1e-5
    np.testing.assert_allclose(gaussian.moments(layer), expected, atol=tolerance)


def test_stable_takes_the_smaller_slope():
    assert gaussian.gp_constants("gelu") == gaussian.gp_constants("gelu", "minus")
    falling = FUNCTIONS["softplus"][0]
    mirrored = gaussian.gp_constants(lambda x: -falling(-x))
    assert mirrored == gaussian.gp_constants(lambda x: -falling(-x), "plus")


def test_stable_warns_where_no_root_is_and_names_the_slope():
    with pytest.warns(UserWarning, match=r"exp.*1\.2642"):
        gaussian.gp_constants(np.exp)
    with pytest.warns(UserWarning, match=r"1\.0000"):
        gaussian.gp_constants(lambda x: 2 * x)


def test_length_slope_is_the_derivative_of_the_length_map():
    f = FUNCTIONS["gelu"][0]
    a, b = gaussian.gp_constants(f, "minus")

    def length(q):
        return integral(lambda z: (a * f(np.sqrt(q) * z) + b) ** 2, [])

    slope = (length(1.001) - length(0.999)) / 0.002
    assert abs(gaussian.length_slope(lambda x: a * f(x) + b) - slope) < 1e-5


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.01, 100),
    shift=st.floats(-10, 10),
    kink=st.floats(-2, 2),
)
def test_normalizing_is_blind_to_an_affine_map_of_the_values(scale, shift, kink):
    def f(x):
        return np.maximum(x - kink, 0) + 0.3 * np.sin(x)

    def g(x):
        return scale * f(x) + shift

    x = np.linspace(-3, 3, 7)
    a, b = gaussian.gp_constants(f, "minus")
    c, d = gaussian.gp_constants(g, "minus")
    np.testing.assert_allclose(a * f(x) + b, c * g(x) + d, atol=1e-7)


def relu_kernel(rho):
    """The arc-cosine kernel of order 1: Cho and Saul, NIPS 2009."""
    return (np.sqrt(1 - rho**2) + (np.pi - np.arccos(rho)) * rho) / (2 * np.pi)


RHO = np.array([-1, -0.9999, -0.9, -0.3, 0, 1e-9, 0.2, 0.5, 0.9, 0.99, 0.999999, 1])


def test_kernel_map_has_the_known_closed_forms():
    np.testing.assert_allclose(
        gaussian.kernel_map(FUNCTIONS["relu"][0], RHO), relu_kernel(RHO), atol=1e-12
    )
    np.testing.assert_allclose(
        gaussian.kernel_map(np.sin, RHO), np.exp(-1) * np.sinh(RHO), atol=1e-12
    )


@pytest.mark.parametrize("name", ["relu", "gelu", "two kinks", "steep tanh"])
def test_kernel_map_as_a_sum_and_as_an_integral(name, monkeypatch):
    """Above a correlation of 0.9 it is an integral, below it a sum."""
    f, rho = FUNCTIONS[name][0], np.array([-0.9, -0.3, 0.6, 0.9])
    summed = gaussian.kernel_map(f, rho)
    monkeypatch.setattr(gaussian, "MEHLER_LIMIT", 0.0)
    np.testing.assert_allclose(gaussian.kernel_map(f, rho), summed, atol=1e-12)


@pytest.mark.parametrize("name", ["gelu", "two kinks", "steep tanh"])
def test_kernel_map_at_its_ends_and_middle(name):
    f, _, kinks = FUNCTIONS[name]
    ends = gaussian.kernel_map(f, np.array([-1.0, 0.0, 1.0]))
    expected = [
        integral(lambda x: f(x) * f(-x), [*kinks, *(-k for k in kinks)]),
        integral(f, kinks) ** 2,
        integral(lambda x: f(x) ** 2, kinks),
    ]
    np.testing.assert_allclose(ends, expected, atol=1e-11)


def test_a_normalized_kernel_map_leaves_one_with_slope_one():
    f = FUNCTIONS["tanh"][0]
    a, b = gaussian.gp_constants(f)
    one, below = gaussian.kernel_map(lambda x: a * f(x) + b, np.array([1, 1 - 1e-6]))
    assert abs(one - 1) < 1e-12
    assert abs((one - below) / 1e-6 - 1) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "eta"),
    [
        *(("relu", eta) for eta in (0.1, 0.5, 0.9)),
        ("gelu", 0.5),
        ("relu at 1/3", 0.9),
    ],
)
def test_the_shaped_kernel_map_iterated_depth_times_arrives_at_eta(name, eta):
    f, depth = FUNCTIONS[name][0], 60
    epsilon = gaussian.shaping_epsilon(f, depth, eta)

    def shaped(x):
        return x + epsilon * f(x)

    a, b = gaussian.gp_constants(shaped, "minus")
    rho = 0.0
    for _ in range(depth):
        rho = gaussian.kernel_map(lambda x: a * shaped(x) + b, rho)
    assert abs(rho - eta) < 1e-8


@pytest.mark.parametrize("eta", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("name", ["relu", "gelu", "steep tanh"])
def test_few_layers_are_iterated_and_many_expanded_with_the_same_result(
    name, eta, monkeypatch
):
    f, depth = FUNCTIONS[name][0], _shaping.MOST_ITERATED
    iterated = gaussian.shaping_epsilon(f, depth, eta)
    monkeypatch.setattr(_shaping, "MOST_ITERATED", depth - 1)
    gaussian.shaping_epsilon.cache_clear()
    expanded = gaussian.shaping_epsilon(f, depth, eta)
    gaussian.shaping_epsilon.cache_clear()
    assert abs(expanded / iterated - 1) < 1e-10


def test_a_hundred_thousand_layers_arrive_at_eta():
    """The kernel map of ReLU is known (Cho and Saul, 2009): it is iterated."""
    depth, eta = 100_000, 0.5
    epsilon = gaussian.shaping_epsilon("relu", depth, eta)
    gamma, rho = epsilon**2 / (1 + epsilon + epsilon**2 / 2), 0.0
    for _ in range(depth):
        kernel = (math.sqrt(1 - rho**2) + (math.pi - math.acos(rho)) * rho) / math.pi
        rho += gamma * ((1 - rho) - 1 + kernel) / 2
    assert abs(rho - eta) < 1e-10


def test_a_thousand_million_layers_take_no_longer():
    start = time.process_time()
    epsilons = [gaussian.shaping_epsilon("relu", 10**n, 0.5) for n in (7, 8, 9)]
    assert time.process_time() - start < 1  # 0.02 on an idle machine
    # It falls as the square root of the depth.
    np.testing.assert_allclose(np.divide(epsilons[:-1], epsilons[1:]), 10**0.5, 1e-3)


def test_epsilon_of_the_research_notes():
    # bsnn.md: at depth 200 and epsilon = 0.2 the correlation climbs to .56, .43, .33.
    for name, eta in (("relu", 0.56), ("gelu", 0.43), ("tanh", 0.33)):
        epsilon = gaussian.shaping_epsilon(FUNCTIONS[name][0], 200, eta)
        assert abs(epsilon - 0.2) < 0.005


def test_unreachable_eta():
    assert gaussian.shaping_epsilon("tanh", 1, 0.5) == np.inf
    assert gaussian.shaping_epsilon("linear", 100, 0.5) == np.inf


@pytest.mark.parametrize("depth", [1, 100, 5000])
@pytest.mark.parametrize("slope", [0.3, -1.7])
def test_no_depth_reaches_eta_with_an_affine_function(slope, depth):
    """Its curve is rounding, of either sign."""
    assert gaussian.shaping_epsilon(lambda x: slope * x + 0.1, depth, 0.5) == np.inf


@pytest.mark.parametrize("eta", [0, 1, -0.5, 2, float("nan")])
def test_eta_outside_the_open_interval(eta):
    with pytest.raises(ValueError, match="`eta` must be in"):
        gaussian.shaping_epsilon("relu", 100, eta)


@pytest.mark.parametrize("depth", [0, -3, 2.5, "10"])
def test_depth_below_one(depth):
    with pytest.raises(ValueError, match="`depth` must be an integer >= 1"):
        gaussian.shaping_epsilon("relu", depth, 0.5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: 0 * x + 3.0, "constant"),
        (lambda x: np.where(x > 1, np.nan, x), "finite"),
        (lambda x: np.exp(x**2), "second moment"),
        (np.sign, "continuous.* at x = (0|-9.09)"),
        (lambda x: np.where(x > 0.3, x + 1, x), "continuous.* at x = 0.3"),
        (lambda x: np.round(x, 1), "continuous|piecewise smooth"),
        (lambda x: np.random.default_rng().normal(size=x.shape), "each entry alone"),
        (lambda x: x - x.mean(), "each entry alone"),
        ("softmax", "each entry alone"),
        (lambda x: x.sum(), "each entry alone"),
        (lambda x: x.astype("float16"), "must return float64"),
        ("no_such_activation", "no_such_activation"),
        (3, "must be the name of a Keras activation or a callable"),
    ],
)
def test_functions_without_a_gp_form(function, message):
    with pytest.raises(ValueError, match=message):
        gaussian.gp_constants(function)


def test_unknown_root():
    with pytest.raises(ValueError, match=r"`root` must be one of.*'both'"):
        gaussian.gp_constants("relu", root="both")


@pytest.mark.parametrize("rho", [1.1, -2, float("nan")])
def test_correlation_out_of_range(rho):
    with pytest.raises(ValueError, match="`rho`"):
        gaussian.kernel_map("relu", rho)


@pytest.mark.parametrize("root", ["plus", "minus"])
def test_length_map(root):
    a, b = gaussian.gp_constants("gelu", root)
    gelu = _integrals.as_function("gelu")

    def phi(x):
        return a * gelu(x) + b

    low, one, high = gaussian.length_map(phi, [0.999, 1.0, 1.001])
    assert one == pytest.approx(1, abs=1e-6)
    slope = (high - low) / 0.002
    assert slope == pytest.approx(gaussian.length_slope(phi), rel=1e-3)
    assert gaussian.length_map("relu", 3.0) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="`q` must be positive"):
        gaussian.length_map("relu", [1.0, 0.0])
