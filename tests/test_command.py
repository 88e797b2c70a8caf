"""The command `keras-bsnn`: its help, what it needs, the demo, and how it is called."""

import importlib
import json
import subprocess
import sys
from argparse import ArgumentParser

import keras
import pytest
from scripts import ROOT
from test_requirements import run as run_apart

import keras_bsnn
from _keras_bsnn_command import COMMANDS
from keras_bsnn.__main__ import main

CALL = "from _keras_bsnn_command import main\n"


@pytest.fixture
def call(capsys):
    """Runs the command in this process; its exit status and what it printed."""

    def run(*arguments):
        try:
            status = main([*map(str, arguments)]) or 0
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_come_at_once(option):
    """Without the import of Keras, which takes seconds."""
    code = f"{CALL}import sys\ntry: main([{option!r}])\nexcept SystemExit: pass\n"
    found = run_apart(f"{code}print('keras' in sys.modules, 'numpy' in sys.modules)")
    assert found == "False False"


def test_help_and_version_say_what_there_is(call):
    status, printed = call("--help")
    assert status == 0
    for name, (_, words) in COMMANDS.items():
        assert name in printed and words in printed
    assert call("--version") == (0, f"keras_bsnn {keras_bsnn.__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_argument_is_explained(call, name):
    module, _ = COMMANDS[name]
    parser = ArgumentParser()
    importlib.import_module(module).add_arguments(parser)
    assert parser.description
    lacking = [action.dest for action in parser._actions if not action.help]
    assert lacking == []
    status, printed = call(name, "--help")
    assert status == 0 and f"usage: keras-bsnn {name}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--depths", "3"], "unrecognized arguments: --depths 3"),
    ],
)
def test_wrong_calls(call, arguments, message):
    status, printed = call(*arguments)
    assert status == 2 and message in printed and "usage: keras-bsnn" in printed


@pytest.mark.slow
def test_a_missing_backend_is_told_of_in_a_line():
    found = run_apart(f"{CALL}main(['report', 'm.keras'])", hidden=["tensorflow"])
    assert found.startswith("keras-bsnn report: error: Keras is to run on tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("package", ["matplotlib.figure", "tensorflow_datasets"])
def test_missing_packages_are_told_of_before_training(
    call, package, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    status, printed = call("train", "--out", tmp_path)
    assert status == 2 and f"error: {package} is not installed: pip install" in printed
    assert [*tmp_path.iterdir()] == []


SMALL_DEMO = ("demo", "--depth", 8, "--epochs", 2, "--out")


@pytest.mark.slow
def test_the_demo(call, tmp_path):
    out = tmp_path / "new"
    status, printed = call(*SMALL_DEMO, out)
    assert status == 0, printed
    assert "keras-bsnn train --model bsnn --dataset digits --depth 8" in printed
    for name in ("signals.png", "model.keras", "saved_model", "result.json"):
        assert f"  {out / name}: " in printed and (out / name).exists()
    assert keras.models.load_model(out / "model.keras").output_shape == (None, 10)
    status, printed = call(*SMALL_DEMO, out)
    assert status == 2 and "is not empty" in printed


@pytest.mark.slow
def test_the_demo_without_tensorflow(tmp_path):
    """On JAX alone: all but the SavedModel, which is said."""
    arguments = [*map(str, (*SMALL_DEMO, tmp_path))]
    code = f"""{CALL}
import contextlib, io
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    main({arguments})
print([line for line in printed.getvalue().splitlines() if "SavedModel" in line])
"""
    hidden = ["tensorflow", "tensorflow_datasets"]
    assert run_apart(code, hidden, "jax") == str(
        [
            "No SavedModel was written: tensorflow is not installed: pip install "
            "'keras_bsnn[tensorflow]' installs it."
        ]
    )
    result = json.loads((tmp_path / "result.json").read_text())["result"]
    assert result["largest_difference"].keys() == {"model.keras"}
    assert not (tmp_path / "saved_model").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [["-m", "keras_bsnn", "train"], [str(ROOT / "examples" / "train.py")]],
    ids=["module", "script"],
)
def test_other_ways_to_call_it(program):
    found = subprocess.run(
        [sys.executable, *program, "--epochs", "0"], capture_output=True, text=True
    )
    assert found.returncode == 2
    *_, last = found.stderr.splitlines()  # TensorFlow logs before
    assert last == "keras-bsnn train: error: --epochs must be at least 1, not 0"


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/home/me/.venv/bin/keras-bsnn", "demo"], "keras-bsnn demo"),
        (["examples/train.py", "--depth", "3"], "python examples/train.py --depth 3"),
        (["/venv/keras_bsnn/__main__.py", "demo"], "python -m keras_bsnn demo"),
    ],
)
def test_the_command_of_a_record_is_what_one_types(argv, command, monkeypatch):
    from keras_bsnn._record import environment

    monkeypatch.setattr(sys, "argv", argv)
    assert environment()["command"] == command
