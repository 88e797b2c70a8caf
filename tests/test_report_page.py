"""The page of a signal report, and the command that writes it for a saved model."""

import base64
import dataclasses
import html.parser
import re
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_bsnn import diagnostics, models, report

RNG = np.random.default_rng(0)
SHAPE = (8, 8, 1)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
VOID = {"meta", "img", "wbr", "br"}


class Page(html.parser.HTMLParser):
    """Of which each tag that opens must close.

    Attributes:
        tags: names and attributes of all, in order.
        texts: pairs of the open tags and the text in them.
    """

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if text.strip():
            self.texts.append((tuple(self.open), text))

    def rows(self):
        """Of the table, a list of cells each, the first being the head."""
        starts = [i for i, (tag, _) in enumerate(self.tags) if tag == "tr"]
        ends = [*starts[1:], len(self.tags)]
        return [
            [tag for tag, _ in self.tags[i:j] if tag in ("td", "th")]
            for i, j in zip(starts, ends, strict=True)
        ]

    def texts_in(self, tag):
        return [text for tags, text in self.texts if tag in tags]


def deep(depth=20):
    keras.utils.set_random_seed(0)
    model = models.bsnn_mlp(depth, 16, input_shape=SHAPE)
    model.compile("sgd", LOSS)
    return model


def vanishing():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu") for _ in range(30)]
    head = [keras.Input(SHAPE), keras.layers.Flatten()]
    model = keras.Sequential([*head, *layers, keras.layers.Dense(10)])
    model.compile("sgd", LOSS)
    return model


def measured(model, samples=16):
    x = RNG.normal(size=(samples, *SHAPE)).astype("float32")
    jit = keras.backend.backend() == "jax"  # which compiles each operation without
    y = RNG.integers(0, 10, samples)
    return diagnostics.signal_report(model, x, y, jit_compile=jit)


@pytest.fixture(scope="module")
def good():
    return measured(deep())


@pytest.fixture(scope="module")
def bad():
    return measured(vanishing())


@pytest.fixture
def page(tmp_path):
    """Of a report."""

    def write(found, **kwargs):
        found.to_html(tmp_path / "page.html", **kwargs)
        return Page(tmp_path / "page.html")

    return write


@pytest.fixture
def call(tmp_path, capsys):
    """The command, in this process: its exit status and what it printed."""

    def run(*arguments):
        arguments = ("--out", tmp_path / "report.html", *arguments)
        try:
            status = report.main([*map(str, arguments)]) or 0
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out if status == 0 else printed.err

    return run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    deep().save(path)
    return path


def test_the_verdict_comes_first_then_the_figure_then_the_table(good, bad, page):
    for found, mark in ((good, "Good"), (bad, "Trouble")):
        written = page(found)
        assert mark in " ".join(written.texts_in("header"))
        order = [t for t, _ in written.tags if t in ("header", "img", "dl", "table")]
        assert order == ["header", "img", "dl", "table", "dl"]
    assert good.gets_through and not bad.gets_through
    assert "keras_bsnn.layers.OrthogonalDense" in "".join(written.texts_in("header"))
    assert written.texts_in("sup")  # of ten, by which gradients fall


def test_it_needs_no_network(good, page, tmp_path):
    written = page(good)
    for _, attributes in written.tags:
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:")
    assert {t for t, _ in written.tags}.isdisjoint({"script", "link", "iframe"})
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "://" not in text and "@import" not in text and "url(" not in text


def test_it_can_be_read_aloud(good, page):
    written = page(good)
    assert ("html", {"lang": "en"}) in written.tags
    (image,) = (attributes for tag, attributes in written.tags if tag == "img")
    assert "gradient" in image["alt"] and "first layer" in image["alt"]
    assert all("scope" in a for tag, a in written.tags if tag == "th")
    assert written.texts_in("caption") and written.texts_in("title")


def test_the_table_has_a_row_for_each_layer(good, page):
    written = page(good)
    rows = written.rows()
    assert len(rows) == 1 + len(good.layers) and len({len(row) for row in rows}) == 1
    assert written.texts_in("tbody").count("OrthogonalDense") == 20
    names = [text for tags, text in written.texts if tags[-2:] == ("tr", "th")]
    assert names[-len(good.layers) :] == good.layers


def test_the_figure_is_an_image(good, page):
    (image,) = (attributes for tag, attributes in page(good).tags if tag == "img")
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(data)


@pytest.mark.slow
def test_what_others_have_named_is_text(good, page, tmp_path):
    name = '<script>alert("&")</script>'
    found = dataclasses.replace(good, layers=[name] * len(good.layers))
    written = page(found, title=name, facts={name: name})
    assert "script" not in {tag for tag, _ in written.tags}
    assert written.texts_in("title") == [name]
    assert name in written.texts_in("tbody") and name in written.texts_in("dd")
    broken = dataclasses.replace(found, gradient=found.gradient * np.nan)
    assert name in "".join(page(broken).texts_in("header"))


@pytest.mark.slow
def test_it_is_the_same_each_time(good, tmp_path):
    for name in "ab":
        good.to_html(tmp_path / name)
    a, b = ((tmp_path / name).read_text(encoding="utf-8") for name in "ab")
    assert re.sub("<dt>Date.*", "", a) == re.sub("<dt>Date.*", "", b)


@pytest.mark.slow
def test_ten_thousand_layers(good, page, tmp_path):
    columns = {
        field.name: [*np.resize(getattr(good, field.name), 10_000)]
        for field in dataclasses.fields(good)
        if field.name != "loss"
    }
    columns["layers"] = [f"stack/{i}" for i in range(10_000)]
    arrays = {
        k: v if k in ("layers", "kinds") else np.array(v) for k, v in columns.items()
    }
    start = time.perf_counter()
    written = page(dataclasses.replace(good, **arrays))
    assert time.perf_counter() - start < 10
    assert (tmp_path / "page.html").stat().st_size < 2e6
    names = [text for text in written.texts_in("tbody") if text.startswith("stack/")]
    assert names[:10] == columns["layers"][:10]
    assert names[-10:] == columns["layers"][-10:]
    assert len(names) == len(set(names)) == 300
    assert "300 of 10,000 layers" in "".join(written.texts_in("caption"))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_signals_that_cannot_be_drawn(good, page, value):
    flat = np.full(len(good.layers), value)
    written = page(dataclasses.replace(good, gradient=flat, root_mean_square=flat))
    assert "Trouble" in " ".join(written.texts_in("header"))


@pytest.mark.slow
def test_the_command(call, saved, tmp_path):
    csv = tmp_path / "all.csv"
    options = ("--batch-size", 32, "--split", "test", "--csv", csv)
    status, printed = call(saved, "--data", "digits", *options)
    assert status == 0 and printed.startswith("The signal gets through 26 layers")
    facts = Page(tmp_path / "report.html").texts_in("dd")
    assert "32 samples of digits, test" in facts
    assert any(fact.endswith(", from model.keras") for fact in facts)
    assert len(csv.read_text().splitlines()) == 27


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "bool"])
def test_data_of_ones_own(call, saved, dtype, tmp_path):
    data = tmp_path / "own.npz"
    x = RNG.uniform(0, 99, (50, *SHAPE)).astype(dtype)
    np.savez(data, x=x, y=RNG.integers(0, 10, 50))
    assert call(saved, "--data", data)[0] == 0
    assert "50 samples of own.npz" in Page(tmp_path / "report.html").texts_in("dd")


@pytest.mark.slow
def test_the_seed_chooses_the_samples(saved, tmp_path):
    def batch(*options):
        parser = report.argument_parser()
        return report.load_batch(parser.parse_args([str(saved), *options]))

    np.savez(tmp_path / "own.npz", x=np.arange(500), y=np.arange(500))
    for data in ("digits", str(tmp_path / "own.npz")):
        (a, _), (b, _), (c, _) = (
            batch("--data", data, "--seed", seed) for seed in "001"
        )
        assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.slow
def test_a_model_that_is_not_compiled(call, tmp_path):
    path = tmp_path / "raw.keras"
    models.bsnn_mlp(5, 16, input_shape=SHAPE).save(path)
    status, printed = call(path, "--data", "digits")
    assert status == 2 and "not compiled" in printed and "--loss" in printed
    name = "sparse_categorical_crossentropy"
    status, _ = call(path, "--data", "digits", "--loss", name, "--from-logits")
    assert status == 0
    page = Page(tmp_path / "report.html")
    assert name in page.texts_in("dd")
    loss = float(page.texts_in("dd")[page.texts_in("dt").index("Loss")])
    x, y = report.load_batch(
        report.argument_parser().parse_args([str(path), "--data", "digits"])
    )
    expected = LOSS(y, keras.models.load_model(path)(x, training=True))
    assert loss == pytest.approx(float(expected), rel=0.01)
    status, printed = call(path, "--data", "digits", "--loss", "mse", "--from-logits")
    assert status == 2 and "mse does not take it" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "letters"], "--data must be one of digits, mnist"),
        (["--data", "nothing.npz"], "there is no file nothing.npz"),
        (["--data", "{tmp}/text.npz"], "text.npz must be an .npz file with arrays x"),
        (["--data", "{tmp}/names.npz"], "names.npz must be an .npz file with arrays x"),
        (["--data", "{tmp}/uneven.npz"], "5 samples in x and 4 in y"),
        (["--data", "{tmp}/empty.npz"], "0 samples in x and 0 in y"),
        (["--data", "{tmp}/narrow.npz"], "Received: [(3,)]"),
        (["--data", "{tmp}/narrow.npz", "--split", "test"], "--split"),
        (["--data", "{tmp}/labels.npz"], "cannot be measured on"),
        (["--data", "digits", "--split", "dev"], "dev"),
        (["--data", "digits", "--batch-size", "0"], "--batch-size"),
        (["--data", "digits", "--batch-size", "5000"], "at most the 1500 images"),
        (["--data", "digits", "--loss", "nope"], "loss identifier: nope"),
        (["--data", "digits", "--out", "{tmp}/no/report.html"], "cannot be written"),
        (["--data", "digits", "--out", "{tmp}/text.npz/a"], "cannot be written"),
        (["--data", "digits", "--out", "{tmp}"], "it is a folder"),
        (["--data", "digits", "--csv", "{tmp}/no/all.csv"], "cannot be written"),
    ],
)
def test_errors_are_one_line(call, saved, arguments, message, tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    x, y = np.zeros((5, *SHAPE)), np.zeros(5, int)
    np.savez(tmp_path / "names.npz", inputs=x, y=y)
    np.savez(tmp_path / "uneven.npz", x=x, y=y[:4])
    np.savez(tmp_path / "empty.npz", x=x[:0], y=y[:0])
    np.savez(tmp_path / "narrow.npz", x=np.zeros((5, 3)), y=y)
    np.savez(tmp_path / "labels.npz", x=x, y=np.zeros((5, 7)))
    status, printed = call(saved, *(a.format(tmp=tmp_path) for a in arguments))
    assert status == 2 and message in printed
    assert printed.count("\n") == 1 and len(printed) < 600


def test_files_that_hold_no_model(call, tmp_path):
    (tmp_path / "text.keras").write_text("not a model")
    for name, message in (
        ("none.keras", "there is no file"),
        ("text.keras", "cannot be loaded as a Keras model"),
    ):
        status, printed = call(tmp_path / name, "--data", "digits")
        assert status == 2 and message in printed and printed.count("\n") == 1


@pytest.mark.slow
def test_packages_that_are_missing(call, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, printed = call(saved, "--data", "digits")
    assert status == 2 and "keras_bsnn[plots]" in printed


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_shows_it(bad, tmp_path):
    """A script, added for the test, says what is seen."""
    path = tmp_path / "page.html"
    bad.to_html(path)
    script = """<script>addEventListener("load", () => {
        const mark = document.querySelector(".mark").getBoundingClientRect()
        document.body.dataset.seen = [document.images[0].naturalWidth > 100,
            mark.height > 20, mark.bottom < innerHeight,
            document.documentElement.scrollWidth <= innerWidth].join() })</script>"""
    path.write_text(path.read_text("utf-8").replace("</body>", f"{script}</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
    found = subprocess.run(
        [*command, "--window-size=500,800", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert 'data-seen="true,true,true,true"' in found.stdout
