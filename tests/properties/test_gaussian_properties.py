"""Of the Gaussian-Poincaré normalization, for functions that are drawn."""

import numpy as np
from draws import property_of, rarely
from hypothesis import assume, example, given
from hypothesis import strategies as st

from keras_bsnn.ops import gaussian

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(20)


def normal_nodes(kink):
    """Nodes and weights under N(0, 1) that do not cross a kink."""
    edges = np.concatenate([np.linspace(-12, kink, 200), np.linspace(kink, 12, 200)])
    half = np.diff(edges)[:, None] / 2
    x = edges[:-1, None] + half * (1 + NODES)
    return x, half * NODE_WEIGHTS * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


class Bent:
    """`a tanh(s x + t) + b |x - k| + c x`, of numpy; it has a kink."""

    def __init__(self, a, s, t, b, k, c):
        self.a, self.s, self.t, self.b, self.k, self.c = a, s, t, b, k, c

    def __call__(self, x):
        curve = self.a * np.tanh(self.s * x + self.t)
        return curve + self.b * np.abs(x - self.k) + self.c * x

    def slope(self, x):
        curve = self.a * self.s / np.cosh(self.s * x + self.t) ** 2
        return curve + self.b * np.sign(x - self.k) + self.c

    def __repr__(self):
        return f"Bent({vars(self)})"


numbers = st.floats(-2, 2)
functions = st.builds(Bent, numbers, numbers, numbers, numbers, numbers, numbers)


def expected_moments(function):
    x, weights = normal_nodes(function.k)
    values, slopes = function(x), function.slope(x)
    return [np.sum(weights * y) for y in (values, values**2, slopes, slopes**2)]


def has_a_slope(function):
    """Not constant, to more than rounding."""
    return expected_moments(function)[-1] > 1e-4


@property_of(gaussian.moments)
@given(functions)
def test_moments_are_integrals(function):
    found = gaussian.moments(function)
    np.testing.assert_allclose(found, expected_moments(function), rtol=1e-9, atol=1e-9)


@property_of(gaussian.gp_constants)
@given(functions, st.sampled_from(["plus", "minus"]))
@example(Bent(0, 0, 0, 0, 0, 2), "minus")  # affine: both roots are one
@example(Bent(-1.5, 2**-6, -1.5, 0, 0, 2**-6), "plus")  # the constants cancel
def test_moments_of_the_normalized_function_are_1(function, root):
    assume(has_a_slope(function))
    a, b = gaussian.gp_constants(function, root)
    m = gaussian.moments(lambda x: a * function(x) + b)
    np.testing.assert_allclose([m.second_moment, m.derivative_second_moment], 1)


@property_of(gaussian.length_map, gaussian.length_slope)
@given(functions)
def test_the_length_map_has_the_fixed_point_1_with_the_slope(function):
    assume(has_a_slope(function))
    a, b = gaussian.gp_constants(function, "plus")

    def phi(x):
        return a * function(x) + b

    h = 1e-4
    below, at, above = gaussian.length_map(phi, np.array([1 - h, 1.0, 1 + h]))
    np.testing.assert_allclose(at, 1)
    slope = gaussian.length_slope(phi)
    np.testing.assert_allclose((above - below) / (2 * h), slope, atol=1e-5, rtol=1e-5)


@property_of(gaussian.kernel_map)
@rarely
@given(functions, st.floats(0, 1))
def test_the_kernel_map_is_a_covariance(function, rho):
    m = gaussian.moments(function)
    at = gaussian.kernel_map(function, np.array([-rho, 0, rho, 1]))
    close = {"rtol": 1e-7, "atol": 1e-7}
    np.testing.assert_allclose(at[1], m.mean**2, **close)
    np.testing.assert_allclose(at[3], m.second_moment, **close)
    assert abs(at[0]) <= at[3] + 1e-7
    assert at[1] - 1e-7 <= at[2] <= at[3] + 1e-7  # a power series: it rises on [0, 1]
