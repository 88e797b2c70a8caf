"""The README and the pages of the documentation: their code runs, their links lead on.

What their tables and their numbers say is in `test_results.py`.
"""

import pathlib
import re
import runpy
import warnings

import keras
import pytest
from scripts import ROOT
from test_package import public_modules

import keras_bsnn

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
SMALL = {"depth": 8, "epochs": 1, "steps": 20, "steps_per_epoch": 2}
SIZE = re.compile(rf"\b({'|'.join(SMALL)})( ?= ?)[\d_]+\b")
TENSORFLOW_ONLY = ("start/export.md",)


def blocks(page):
    """The code of a page, to be run in small."""
    found = CODE.findall(page.read_text())
    return [SIZE.sub(lambda m: m[1] + m[2] + str(SMALL[m[1]]), code) for code in found]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=name_of)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    name = page.relative_to(DOCS).as_posix()
    if name in TENSORFLOW_ONLY and keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow writes these files")
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks(page):
        exec(code, names)


@pytest.mark.slow
def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    """Without a warning; the second block needs nothing of the first but its file."""
    monkeypatch.chdir(tmp_path)
    train, load = blocks(README)
    assert "depth=200" in README.read_text() and "depth=8" in train
    assert len(train.splitlines()) <= 17
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # as Python does
        for number, code in enumerate((train, load)):
            script = tmp_path / f"{number}.py"
            script.write_text(code)
            names = runpy.run_path(str(script))
    assert names["model"].output_shape == (None, 10)


def test_the_readme_is_short():
    """Also its code, which a phone does not wrap."""
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    code = [
        line for text in CODE.findall(README.read_text()) for line in text.split("\n")
    ]
    code += [line for line in lines if line.startswith("    ")]
    assert len(code) > 20 and max(map(len, code)) <= 74


def addresses():
    """Of the repository and of the documentation, as the package says them."""
    text = (ROOT / "pyproject.toml").read_text()
    return dict(re.findall(r'^(Source|Documentation) = "(.*)"$', text, re.MULTILINE))


def test_links_of_the_readme():
    """They are absolute, for the page of an index, and lead to what is there."""
    source, site = (addresses()[key] for key in ("Source", "Documentation"))
    links = re.findall(r"\]\(([^)]*)\)", README.read_text())
    ours = [link for link in links if link.startswith((source, site))]
    assert len(ours) > 15
    for link in links:
        assert link.startswith("https://")
    for link in ours:
        if link.startswith(source):
            path = link.removeprefix(source).split("/", 3)[-1]
        else:
            path, _, anchor = link.removeprefix(f"{site}/").partition("#")
            path = f"docs/{path.removesuffix('.html')}"
            path += ".ipynb" if path.endswith("depth_without_limits") else ".md"
            assert not anchor or anchor in anchors(ROOT / path), link
        assert (ROOT / path).exists(), link


def anchors(page):
    """Of the headings of a page."""
    heads = re.findall(r"^##+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"\W+", "-", head.lower()).strip("-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_into_the_repository(page):
    """The build of the site checks all others."""
    for path in re.findall(r"\]\(repo:([^)#]*)\)", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_is_taken_for_a_comment(page):
    """A line that begins with the sign for percent is left out, without a warning."""
    assert not re.search(r"^%", page.read_text(), re.MULTILINE)


def test_every_public_module_is_in_the_reference():
    """Its page lists what is in `__all__`; the build misses no name."""
    index = (DOCS / "reference" / "index.md").read_text()
    listed = set(re.findall(r"^   (keras_bsnn\.\w+)$", index, re.MULTILINE))
    names = {f"keras_bsnn.{name}" for name in keras_bsnn.__all__}
    assert listed == names - {"keras_bsnn.__version__"}
    modules = {m.__name__: m.__all__ for m in public_modules() if hasattr(m, "__all__")}
    below = {f"{name}.{child}" for name in listed for child in modules.get(name, ())}
    assert modules.keys() - listed - below == {"keras_bsnn.version"}
    template = DOCS / "_templates" / "autosummary" / "module.rst"
    assert "{% for name in members %}" in template.read_text()


def test_every_page_is_in_a_table_of_contents():
    """A page that no other names is not found."""
    named = {
        (page.parent / f"{entry}").resolve()
        for page in PAGES
        for tree in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.DOTALL)
        for entry in re.findall(r"^\w[\w/]*$", tree, re.MULTILINE)
    }
    pages = {pathlib.Path(page).with_suffix("") for page in PAGES}
    assert pages - named == {DOCS / "index"}
