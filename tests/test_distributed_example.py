"""Several processes and devices, small: they train as one process does.

For the strategy `mirrored`, that is in tests/test_benchmarks.py.
"""

import importlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from scripts import ROOT

from keras_bsnn.layers import DepthStack

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        keras.backend.backend() != "jax",
        reason="the workers run JAX, whatever the tests run",
    ),
]

SMALL = ["--depth", 60, "--units", 16, "--epochs", 3, "--timeout", 300]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def train(folder):
    """Runs the script; its workers end when it does, or by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        script = importlib.import_module("distributed")

    def run(name, *arguments):
        places = ["--out", folder / name, "--data", folder / "digits.npz"]
        script.main([*map(str, [*SMALL, *arguments, *places])])
        return json.loads((folder / name / "result.json").read_text())["result"]

    return run


def losses(result):
    return np.array(result["losses"])


@pytest.fixture(scope="module")
def by_depth(train):
    """Two that divide the layers, one of which is killed; and the run of one alone."""
    arguments = ["--processes", 2, "--kill", 1, "--memory"]
    return train("depth", "--strategy", "depth", *arguments)


def test_two_processes_train_as_one(train, by_depth, capsys):
    alone = by_depth["alone"]
    together = train("two", "--processes", 2, "--no-alone")["together"]
    assert len(losses(alone)) == 3 and losses(alone)[-1] < 0.5 * losses(alone)[0]
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-5)
    assert together["accuracy"] == pytest.approx(alone["accuracy"], abs=0.01)
    assert alone["accuracy"] > 0.8
    assert "MB on a device" in capsys.readouterr().out


def test_after_a_kill_they_go_on(by_depth):
    divided, alone = by_depth["together"], by_depth["alone"]
    assert divided["restarts"] == 1 and divided["resumed_after"] == 1
    assert alone["restarts"] == 0 and alone["resumed_after"] == 0
    np.testing.assert_allclose(losses(divided), losses(alone), rtol=1e-5)
    assert by_depth["largest_difference"] < 1e-5
    assert divided["orthogonality_error"] < 1e-6


def test_depth_is_divided_among_processes(by_depth):
    """Each has half of the layers, their momentum, and of the step."""
    divided, alone = by_depth["together"], by_depth["alone"]
    kernel, momentum = divided["shapes"].values()
    assert kernel == momentum == [[60, 16, 16], [30, 16, 16]]
    assert divided["megabytes_kept"] < 0.55 * alone["megabytes_kept"]
    assert divided["megabytes_of_step"] < 0.55 * alone["megabytes_of_step"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "7"], "multiples of 7"),
        (["--strategy", "depth", "--devices", "8"], "multiples of 8"),
        (["--strategy", "mirrored", "--processes", "2"], "one process"),
    ],
)
def test_what_cannot_be_divided(train, arguments, message, capsys):
    with pytest.raises(SystemExit):
        train("refused", *arguments)
    assert message in capsys.readouterr().err


def test_a_worker_that_was_started_by_hand_leaves_its_result(
    train, tmp_path, monkeypatch
):
    """Also where stacks were made before, as in a notebook."""
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    DepthStack(keras.layers.Dense(2), depth=2)
    small = ["--worker", "0", "--depth", "2", "--units", "8", "--epochs", "1"]
    importlib.import_module("distributed").main([*small, "--out", str(tmp_path / "a")])
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["resumed_after"] == 0 and len(losses(result)) == 1


class TestProcesses:
    """`run_together`, with workers that do not train."""

    @pytest.fixture
    def run(self, train, tmp_path):
        processes = importlib.import_module("_processes")

        def run(*programs, timeout=60, restarts=3):
            commands = [[sys.executable, "-c", program] for program in programs]
            log = tmp_path / "log"
            return processes.run_together(
                lambda: commands, None, log, timeout, restarts
            )

        return run

    def test_one_that_is_killed_is_started_again_with_the_others(self, run, tmp_path):
        victim = (
            "import os, pathlib, signal\n"
            f"starts = pathlib.Path({str(tmp_path / 'starts')!r})\n"
            "starts.open('a').write('x')\n"
            "if len(starts.read_text()) < 3: os.kill(os.getpid(), signal.SIGKILL)"
        )
        assert run(victim, "pass") == 2

    def test_an_error_ends_all(self, run):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            run("1 / 0", "import time; time.sleep(100)")

    def test_none_outlives_the_timeout(self, run, tmp_path):
        with pytest.raises(RuntimeError, match="in time"):
            run("import time; time.sleep(1000)", timeout=0.1)
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True)
        assert "time.sleep(1000)" not in listed.stdout.replace("ps -eo", "")
