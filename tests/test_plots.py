"""Figures show what they are given, in one style."""

import types

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_bsnn import plots
from keras_bsnn.activations import DepthShaped, GaussianPoincare
from keras_bsnn.ops import gaussian


@pytest.fixture
def panels(monkeypatch):
    """Of the last figure that was written."""
    found = []

    def savefig(figure, path):
        found[:] = figure.axes

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def report(**columns):
    return types.SimpleNamespace(
        **{name: np.array(values, "float64") for name, values in columns.items()}
    )


def curve(panel, index=0):
    return panel.lines[index].get_ydata()


def test_one_style(tmp_path):
    before = dict(matplotlib.rcParams)
    with plots.figure(tmp_path / "figure.png", 2) as (above, below):
        lines = [above.plot([1, 2], label=f"{i}")[0] for i in range(9)]
        below.set_title("a title")
        above.legend()
    assert (tmp_path / "figure.png").stat().st_size > 5000
    assert dict(matplotlib.rcParams) == before
    styles = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(styles) == 9 and {line.get_color() for line in lines} == {*plots.COLORS}
    assert not above.spines["top"].get_visible()


def test_nothing_is_written_of_what_cannot_be_drawn(tmp_path):
    path = tmp_path / "figure.png"
    with pytest.raises(RuntimeError, match="in the middle"), plots.figure(path):
        raise RuntimeError("in the middle")
    assert not path.exists()


def test_signals(panels):
    first = report(gradient=[0, 0, 1e-30, 1e-20, 1], isometry_gap=[1, 2, 3, 4, np.inf])
    second = report(gradient=[1, 1, 1, 1, 1], isometry_gap=[np.nan, 2, np.nan, 4, 5])
    fields = ["gradient", "isometry_gap"]
    plots.signals({"a": first, "b": second}, None, "where", fields)
    gradient, gap = panels
    np.testing.assert_array_equal(curve(gradient), [np.nan, np.nan, 1e-30, 1e-20, 1])
    assert [text.get_text() for text in gradient.texts] == ["0 in float32"]
    assert gradient.get_yscale() == "log" and gap.get_xlabel() == "where"
    # Crosses where a curve goes on at 0 or at infinity.
    assert gradient.lines[1].get_xydata().tolist() == [[3, 3e-12]]
    assert gap.lines[1].get_xydata().tolist() == [[4, 4]]
    assert gap.lines[3].get_xydata().tolist() == []
    # A layer that has no such thing is passed over, and does not end the curve.
    np.testing.assert_array_equal(gap.lines[2].get_xdata(), [2, 4, 5])
    low, high = gradient.get_ylim()
    assert low == 1e-12 and 1 < high < 1e3


def test_a_share_has_no_logarithm(panels):
    plots.signals({"": report(saturated=[0, 0.5, 1])}, None, fields=["saturated"])
    (panel,) = panels
    assert panel.get_yscale() == "linear"
    np.testing.assert_array_equal(curve(panel), [0, 0.5, 1])


def test_heat_map(panels):
    reports = {10: report(gradient=[1, 0, np.nan]), 20: report(gradient=[3, 4, np.nan])}
    plots.heat_map(reports, None, fields=["gradient"])
    mesh = panels[0].collections[0]
    drawn = np.ma.filled(mesh.get_array(), np.nan)
    np.testing.assert_array_equal(drawn, [[1, 3], [np.nan, 4]])
    assert panels[0].get_xlabel() == "batches"


def test_singular_values(panels):
    values = np.array([[4.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    plots.singular_values({"layer": values}, None)
    (panel,) = panels
    np.testing.assert_allclose(curve(panel)[:2], [2, 1])
    low, high = panel.get_ylim()
    assert 1e-9 < low < 1e-7 and 4 < high < 20


@pytest.mark.slow
def test_kernel_map(panels):
    """Shaping ends two orthogonal inputs at a correlation that is known."""
    functions = {
        "relu": GaussianPoincare("relu"),
        "shaped": DepthShaped("relu", 20, eta=0.3),
    }
    plots.kernel_map(functions, None, depth=20)
    above, below = panels
    assert curve(below, 1)[-1] == pytest.approx(0.3, abs=1e-6)
    assert len(curve(below)) == 21 and curve(below)[0] == 0
    expected = gaussian.kernel_map(functions["relu"], 0.0)
    assert curve(below)[1] == pytest.approx(expected)
    assert curve(above, 1)[-1] == pytest.approx(1)


def test_kernel_map_of_a_function_of_another_scale(panels):
    plots.kernel_map({"relu": "relu"}, None, depth=1, start=1.0)
    np.testing.assert_allclose(curve(panels[1]), [1, 1], atol=1e-9)


def test_length_map(panels):
    plots.length_map("gelu", None, depth=9)
    above, below = panels
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == ["root plus: slope 1.11", "root minus: slope 0.50"]
    unstable, stable = curve(below, 0), curve(below, 2)
    assert unstable[0] == stable[0] == 2
    assert np.all(np.diff(unstable) > 0) and abs(stable[-1] - 1) < 0.01


def test_a_length_that_diverges_is_followed_as_far_as_it_can_be_drawn(panels):
    plots.length_map(lambda x: x**3, None, depth=50)
    assert 1e3 < curve(panels[1])[-1] < np.inf


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"`fields` must be of .* Received: 'grad'"):
        plots.signals({"": None}, None, fields=["grad"])
    with pytest.raises(ValueError, match="`fields` must be of"):
        plots.heat_map({1: None}, None, fields=["grad"])
    with pytest.raises(ValueError, match="`reports` must have at least one report"):
        plots.heat_map({}, None)
