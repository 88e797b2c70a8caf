"""Of pictures: whatever is measured, they are drawn, and say what they should."""

import io
import types

import numpy as np
import pytest
from draws import ACTIVATIONS, property_of, rarely, seeds
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib import image

from keras_bsnn import plots
from keras_bsnn.plots._signals import TITLES

# What no axis has a place for comes between ordinary numbers.
entries = st.one_of(
    st.floats(1e-3, 1e3), st.sampled_from([0.0, 1e-45, 1e38, np.nan, np.inf])
)
columns = st.lists(entries, min_size=1, max_size=6).map(np.array)
fields = st.lists(st.sampled_from([*TITLES]), min_size=1, max_size=3, unique=True)
names = st.sampled_from(ACTIVATIONS)


def report_of(column):
    return types.SimpleNamespace(**dict.fromkeys(TITLES, column))


def drawn(draw):
    """The picture as an array of its pixels, which must not be blank."""
    file = io.BytesIO()
    draw(file)
    file.seek(0)
    pixels = image.imread(file, format="png")
    assert np.ptp(pixels) > 0.5
    return pixels


@property_of(plots.signals)
@rarely
@given(st.lists(columns, min_size=1, max_size=3), fields)
def test_signals_of_any_size_are_drawn(curves, fields):
    reports = {f"model {i}": report_of(curve) for i, curve in enumerate(curves)}
    drawn(lambda file: plots.signals(reports, file, fields=fields))


@pytest.mark.slow
@property_of(plots.heat_map)
@rarely
@given(columns, st.integers(1, 3), fields)
@example(np.zeros(3), 2, ["gradient"])  # a network that is dead
@example(np.full(3, np.nan), 2, ["saturated"])
def test_heat_maps_of_any_size_are_drawn(column, times, fields):
    reports = {10 * (i + 1): report_of(column) for i in range(times)}
    drawn(lambda file: plots.heat_map(reports, file, fields))


@property_of(plots.singular_values)
@rarely
@given(seeds, st.integers(1, 3), st.integers(1, 6))
def test_spectra_of_any_shape_are_drawn(seed, batch, count):
    values = np.random.default_rng(seed).exponential(size=(batch, count))
    values[:, -1] *= values[:, -1] > 0.5  # a zero now and then
    drawn(lambda file: plots.singular_values({"one": values}, file))


@pytest.mark.slow
@property_of(plots.length_map, plots.kernel_map)
@rarely
@given(names, st.integers(1, 9))
def test_maps_of_any_activation_are_drawn(name, depth):
    lengths = drawn(lambda file: plots.length_map(name, file, depth))
    kernels = drawn(lambda file: plots.kernel_map({name: name}, file, depth))
    assert lengths.shape != kernels.shape or np.any(lengths != kernels)


@property_of(plots.figure, plots.legend_above)
@rarely
@given(st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_figures_have_their_panels_and_their_legend(rows, columns, with_legend):
    def draw(file):
        with plots.figure(file, rows, columns) as panels:
            flat = np.atleast_1d(panels).ravel()
            assert len(flat) == rows * columns
            for panel in flat:
                panel.plot([1, 2, 3], label="a curve")
            if with_legend:
                plots.legend_above(flat)
                assert len(flat[0].figure.legends) == 1

    drawn(draw)


@property_of(plots.legend_on_top)
@rarely
@given(st.integers(1, 7), st.integers(1, 4))
def test_the_legend_of_a_panel_is_above_it(curves, columns):
    def draw(file):
        with plots.figure(file) as panel:
            for curve in range(curves):
                panel.plot([1, 2, 3], label=f"curve {curve}")
            plots.legend_on_top(panel, ncols=columns)
        legend = panel.get_legend().get_window_extent()
        assert legend.y0 >= panel.get_window_extent().y1 - 1  # less than a pixel

    drawn(draw)
