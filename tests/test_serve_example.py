"""The serving example: what it answers, and the page in a browser."""

import contextlib
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest
import uvicorn
from playwright.sync_api import expect, sync_playwright
from scripts import ROOT

from keras_bsnn import datasets, diagnostics, models

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "examples" / "serve.py"
DEPTH = 20
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
BLANK = np.zeros((8, 8)).tolist()
TURN = np.linspace(0, 2 * np.pi, 25)
STROKES = {  # of points (x, y) from 0 to 1
    "0": [np.stack([0.5 + 0.2 * np.sin(TURN), 0.5 - 0.33 * np.cos(TURN)], axis=-1)],
    "1": [np.array([(0.5, 0.2), (0.5, 0.8)])],
    "4": [
        np.array([(0.55, 0.18), (0.28, 0.6), (0.74, 0.6)]),
        np.array([(0.6, 0.42), (0.56, 0.85)]),
    ],
    "7": [np.array([(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)])],
}


def module(path):
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def serve():
    return module(SCRIPT)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What train.py leaves of a small network."""
    folder = tmp_path_factory.mktemp("run")
    size = ["--depth", DEPTH, "--units", 32, "--batch-size", 50, "--epochs", 8]
    jit = "--jit" if keras.backend.backend() == "jax" else "--no-jit"  # the quicker
    arguments = ["train.py", *size, jit, "--no-baseline", "--out", folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*map(str, arguments)])
        module(SCRIPT.with_name("train.py")).main()
    return folder


@pytest.fixture(scope="module")
def served(serve, run):
    return serve.ServedModel(serve.exported(run))


@pytest.fixture
def start(serve, served):
    """Starts the service; returns its address, and what stops it."""
    with contextlib.ExitStack() as stack:

        def start():
            listener = socket.create_server((serve.HOST, 0))
            config = uvicorn.Config(serve.service(served), log_level="warning")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()

            def stop():
                server.should_exit = True
                thread.join(30)

            stack.callback(stop)
            return f"http://{serve.HOST}:{listener.getsockname()[1]}", stop

        yield start


@pytest.fixture
def ask(start):
    address, _ = start()
    return lambda *arguments: request(address, *arguments)


def request(address, path, body=None):
    """The status of an answer, and what its JSON says."""
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    try:
        with urllib.request.urlopen(address + path, body, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def raw_and_standardized(images):
    """Digits of the test split: their pixels, what the network takes, and labels."""
    x, y = next(iter(datasets.load("digits", "test", images)))
    digits = datasets.IMAGE_SETS["digits"]
    pixels = 255 * (np.asarray(x)[..., 0] * digits.std + digits.mean)
    return pixels.round(), np.asarray(x), np.asarray(y)


def test_it_answers_as_the_model_in_memory(ask, run):
    pixels, x, y = raw_and_standardized(60)
    status, answer = ask("/predict", {"pixels": pixels.tolist()})
    model = keras.models.load_model(run / "model.keras")
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model(x)))
    assert status == 200
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-4)
    assert answer["class"] == expected.argmax(axis=-1).tolist()
    assert np.mean(answer["class"] == y) > 0.85


def signal_of(model, x):
    """In each layer of the stack, as `signal_report` measures it."""
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    report = diagnostics.signal_report(model, x, np.zeros(len(x)), training=False)
    in_stack = ["depth_stack" in name for name in report.layers]
    return report.root_mean_square[in_stack]


def test_an_image_alone_is_one_of_several(ask, run):
    pixels, x, _ = raw_and_standardized(3)
    _, several = ask("/predict", {"pixels": pixels.tolist()})
    _, alone = ask("/predict", {"pixels": pixels[1].tolist()})
    assert alone["class"] == several["class"][1]
    for name in ("probabilities", "signal"):
        np.testing.assert_allclose(alone[name], several[name][1], rtol=1e-4, atol=1e-6)
    expected = signal_of(keras.models.load_model(run / "model.keras"), x[1:2])
    np.testing.assert_allclose(alone["signal"], expected, rtol=1e-4)


@pytest.mark.parametrize("make", [models.batchnorm_mlp, models.roaf_mlp])
def test_the_signal_of_other_networks(serve, make):
    model = make(4, 16, input_shape=(8, 8, 1))
    _, x, _ = raw_and_standardized(1)
    found = serve.with_signal(model)(x)
    expected = keras.ops.softmax(model(x))
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    np.testing.assert_allclose(found["signal"][0], signal_of(model, x), rtol=1e-4)


def test_it_tells_what_it_takes(ask, served):
    status, facts = ask("/model")
    assert status == 200
    assert (facts["size"], facts["layers"], facts["classes"]) == ([8, 8], DEPTH, 10)
    stack = facts["certificate"]["kernels"][1]
    assert stack["shape"] == [DEPTH, 32, 32] and stack["orthogonality_error"] < 1e-5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff{", "The body must be JSON"),
        (b"[" * 100_000, "The body must be JSON"),
        (b"[]", 'The body must be an object: {"pixels"'),
        ({"pixel": BLANK}, 'The body must be an object: {"pixels"'),
        ({"pixels": 3}, "an image of shape (8, 8), or several. Received: ()"),
        ({"pixels": []}, "Received: (0,)"),
        ({"pixels": BLANK[1:]}, "Received: (7, 8)"),
        ({"pixels": [[BLANK]]}, "Received: (1, 1, 8, 8)"),
        ({"pixels": [[0, 1], [0]]}, "`pixels` must be an array"),
        ({"pixels": [["1"] * 8] * 8}, "`pixels` must be numbers"),
        ({"pixels": [[10**400] * 8] * 8}, "`pixels` must be numbers"),
        ({"pixels": [[float("nan")] * 8] * 8}, "from 0 to 255. Received: from nan"),
        ({"pixels": [[float("inf")] * 8] * 8}, "Received: from inf to inf"),
        ({"pixels": [[-1] * 8] * 8}, "Received: from -1 to -1"),
        ({"pixels": [BLANK] * 65}, "at most 64 images. Received: 65"),
    ],
)
def test_bad_input(ask, body, message):
    status, answer = ask("/predict", body)
    assert status == 400 and message in answer["error"]


def test_other_requests(ask):
    status, answer = ask("/predict", b" " * (2**20 + 1))
    assert status == 413 and "at most 1048576 bytes" in answer["error"]
    assert ask("/predict")[0] == 405
    assert ask("/nothing")[0] == 404
    assert ask("/predict", {"pixels": BLANK})[0] == 200  # it is still there


def test_the_command(run):
    """Serves until Ctrl-C."""
    command = [sys.executable, str(SCRIPT), str(run), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            address = process.stdout.readline().split()[0]
            assert request(address, "/predict", {"pixels": BLANK})[0] == 200
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and "Traceback" not in errors


@pytest.fixture
def refused(serve, monkeypatch, capsys):
    """Runs the script where it must end; returns what it prints."""

    def refused(*arguments):
        monkeypatch.setattr(sys, "argv", ["serve.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            serve.main()
        assert stop.value.code == 2
        return capsys.readouterr().err

    return refused


def test_a_damaged_model_is_refused(refused, served, run, tmp_path):
    copy = shutil.copytree(run / "serving", tmp_path / "serving")
    with open(copy / "saved_model.pb", "ab") as file:
        file.write(b"0")
    assert "saved_model.pb changed, went or came" in refused(tmp_path)


def test_folders_that_cannot_be_served(refused, tmp_path):
    assert "has no settings.json: keras-bsnn train writes one" in refused(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"dataset": "cifar10"}))
    assert "has no model.keras" in refused(tmp_path)
    (tmp_path / "model.keras").write_text("not a model")
    assert "one channel" in refused(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"dataset": "digits"}))
    assert "model.keras" in refused(tmp_path)
    assert not (tmp_path / "serving").exists()


def test_ports_that_cannot_be_had(refused, serve, served, run):
    with socket.create_server((serve.HOST, 0)) as taken:
        assert "in use" in refused(run, "--port", taken.getsockname()[1])
    assert "port must be" in refused(run, "--port", 70_000)


@pytest.fixture
def page():
    if CHROMIUM is None:
        pytest.skip("needs chromium or google-chrome")
    with sync_playwright() as driver:
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
        with driver.chromium.launch(**options) as browser:
            yield browser.new_page()


def draw(page, digit):
    """And waits for the last answer, if there is one."""
    box = page.locator("#paper").bounding_box()
    corner, size = (box["x"], box["y"]), (box["width"], box["height"])
    for stroke in STROKES[digit]:
        first, *others = corner + stroke * size
        page.mouse.move(*first)
        page.mouse.down()
        for point in others:
            page.mouse.move(*point, steps=3)
        page.mouse.up()
    page.wait_for_function("!isAsking")


def points_of_curve(page):
    return page.evaluate("document.querySelector('#signal polyline').points.length")


def test_one_draws_a_digit_and_sees_its_class_and_the_signal(page, start):
    address, stop = start()
    errors, addresses = [], []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(address)
    expect(page.locator("#layers")).to_have_text(str(DEPTH))
    clear = page.get_by_role("button", name="Clear")
    for digit in STROKES:
        draw(page, digit)
        expect(page.locator("#class")).to_have_text(digit)
        assert page.locator("#classes .best span").first.inner_text() == digit
        assert points_of_curve(page) == DEPTH
        assert "from" in page.locator("#range").inner_text()
        clear.press("Enter")
        expect(page.locator("#class")).to_have_text("")
        assert points_of_curve(page) == 0
    assert errors == [] and all(a.startswith(address) for a in addresses)

    draw(page, "1")
    stop()
    draw(page, "1")
    expect(page.get_by_role("alert")).to_contain_text("service does not answer")
    expect(page.locator("#class")).to_have_text("")  # it would be an old one


def test_the_page_on_a_phone(page, start):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(start()[0])
    draw(page, "7")
    expect(page.locator("#class")).to_have_text("7")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("size", [8, 28])
def test_a_drawing_becomes_an_image_as_those_of_the_data(page, start, size):
    """Wherever and however large it is drawn."""
    page.goto(start()[0])
    for strokes in STROKES.values():
        small, large = (
            np.array(page.evaluate("(s) => pixelsOf(...s)", [drawn, [size, size]]))
            for drawn in (
                [(0.4 * stroke + (0.1, 0.5)).tolist() for stroke in strokes],
                [stroke.tolist() for stroke in strokes],
            )
        )
        np.testing.assert_allclose(small, large, atol=2)
        ink, places = large / 255, np.arange(size) + 0.5
        if size == 8:
            assert ink.mean() == pytest.approx(0.305, abs=0.05)
            assert ink[0].max() > 0.5 and ink[-1].max() > 0.5
        else:
            centre = [(ink.sum(axis) @ places) / ink.sum() for axis in (0, 1)]
            np.testing.assert_allclose(centre, 14, atol=0.5)
            assert np.ptp(np.flatnonzero(ink.any(axis=1))) + 1 in (20, 21)
