"""The notebook, in small; and that it is shown as it is at full size."""

import importlib.util
import re
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from scripts import REPRODUCE, ROOT, runner

NOTEBOOK = ROOT / "examples" / "depth_without_limits.ipynb"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Executed by the interpreter that runs the tests."""
    out = tmp_path_factory.mktemp("notebook") / "small.ipynb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BSNN_SMALL", "1")
        runner(REPRODUCE, patch)("notebook.py", "--out", out)
    return nbformat.read(out, as_version=4)


@pytest.fixture(scope="module")
def shown():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    """What each cell printed."""
    return [
        "".join(output.text for output in cell.outputs if "text" in output)
        for cell in code_cells(notebook)
    ]


def accuracies(words):
    return [float(share) / 100 for share in re.findall(r"([\d.]+)%", words)]


def check_story(notebook, deep):
    """From the vanishing gradient to what is served, of `deep` layers."""
    assert [cell.execution_count for cell in code_cells(notebook)] == [*range(1, 12)]
    installs, *words = printed(notebook)
    _, _, vanishes, _, _, gets_through, trains, others, deepest, served = words
    assert installs == ""
    assert re.match(r"Vanishing gradients: they fall by a factor of 10", vanishes)
    assert gets_through.startswith("The signal gets through")
    assert others.count("The signal gets through") == 2
    assert deepest.count("The signal gets through") == 2 and f"{deep:,} lay" in deepest
    plain, ours = accuracies(trains)
    assert plain < 0.3 and ours > 0.9
    (accuracy,) = accuracies(deepest)
    assert accuracy > 0.9 and accuracies(served) == [accuracy] * 2
    pictures = [o for c in code_cells(notebook) for o in c.outputs if "data" in o]
    assert len(pictures) == 4 and all("image/png" in o.data for o in pictures)


@pytest.mark.slow
def test_it_runs_in_small(small, shown):
    assert [cell.source for cell in small.cells] == [c.source for c in shown.cells]
    check_story(small, deep=200)


def test_it_is_shown_at_full_size(shown):
    check_story(shown, deep=10_000)
    assert "200 layers" in printed(shown)[7]
    trained, deepest = (accuracies(printed(shown)[i])[-1] for i in (7, 9))
    assert trained > 0.97 and deepest > 0.97


def test_it_is_small_and_without_noise(shown):
    assert NOTEBOOK.stat().st_size < 100_000
    assert set(shown.metadata) == {"kernelspec", "language_info"}
    for cell in code_cells(shown):
        assert not cell.metadata
        kinds = {output.get("name", output.output_type) for output in cell.outputs}
        assert kinds <= {"stdout", "execute_result"}
    for words in printed(shown):
        assert not re.search(r"\w/\w|[Ww]arning|INFO|Error", words), "a path or a log"


def test_its_badge_opens_it(shown):
    """The address of a notebook service is that of the file in the repository."""
    metadata = (ROOT / "pyproject.toml").read_text()
    source = re.search(r'^Source = "https://github.com/(.*)"$', metadata, re.MULTILINE)
    (address,) = re.findall(r"\]\((https://colab[^)]*)\)\n", shown.cells[0].source)
    start = f"https://colab.research.google.com/github/{source[1]}/blob/main/"
    assert ROOT / address.removeprefix(start) == NOTEBOOK


@pytest.mark.parametrize("is_there", [True, False])
def test_it_installs_what_is_missing(shown, is_there, monkeypatch):
    code = TransformerManager().transform_cell(code_cells(shown)[0].source)
    calls = []
    shell = SimpleNamespace(run_line_magic=lambda *call: calls.append(call))
    if not is_there:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(code, {"get_ipython": lambda: shell})
    wanted = [("pip", 'install --quiet "keras_bsnn[datasets,plots]"')]
    assert calls == ([] if is_there else wanted)
