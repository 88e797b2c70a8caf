"""`keras-bsnn train`, small: what it leaves behind, and how it goes on after a kill."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser

import keras
import pytest
from scripts import ROOT

from keras_bsnn import _train, datasets
from keras_bsnn.__main__ import main
from keras_bsnn._train import _networks, _run
from keras_bsnn.callbacks import BackupAndRestore
from keras_bsnn.layers import DepthStack

SCRIPT = ROOT / "examples" / "train.py"
# Without jit, JAX would compile the loop of a stack anew in every step.
QUICK = "--jit" if keras.backend.backend() == "jax" else "--no-jit"
SMALL = ["--depth", "8", "--units", "24", "--batch-size", "50"]
RESUMED = [*SMALL, QUICK, "--no-baseline"]  # what is broken off, and goes on


@pytest.fixture
def call(capsys):
    """Runs the command in this process; its exit status and what it printed."""

    def run(*arguments):
        try:
            status = main(["train", *map(str, arguments)]) or 0
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


@pytest.fixture(scope="module")
def of_two_epochs(tmp_path_factory):
    """A run that is over."""
    folder = tmp_path_factory.mktemp("two")
    main(["train", *RESUMED, "--epochs", "2", "--out", str(folder)])
    return folder


@pytest.fixture
def two(of_two_epochs, tmp_path):
    """A copy of it, and the arguments with which it goes on."""
    folder = shutil.copytree(of_two_epochs, tmp_path / "two")
    return folder, [*RESUMED, "--epochs", 2, "--out", folder, "--resume"]


def epochs_in(folder):
    with open(folder / "history.csv") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def extend(folder, epochs):
    """Has a run that is there take more epochs."""
    path = folder / "settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": epochs}))


@pytest.mark.slow
def test_it_trains_saves_exports_and_serves(call, tmp_path):
    out = tmp_path / "new" / "folder"
    status, printed = call(*SMALL, "--epochs", 8, "--out", out)
    assert status == 0, printed
    assert epochs_in(out) == list(range(8))
    for name in ("model.keras", "saved_model/saved_model.pb", "signals.png"):
        assert (out / name).exists()
    record = json.loads((out / "result.json").read_text())
    assert record["settings"]["depth"] == 8 and record["versions"]["keras"]
    result = record["result"]
    assert result["accuracy"]["ours"]["test"] > 0.9
    assert set(result["accuracy"]["plain"]) == {"train", "validation", "test"}
    assert result["orthogonality_error"] < 1e-5
    assert max(result["largest_difference"].values()) < 1e-5
    assert result["norms"]["ours"]["forward"]["min"] > 0.1
    for words in ("test accuracy", "gradient norm, median", "batch of 1,000"):
        assert words in printed


@pytest.mark.slow
@pytest.mark.parametrize("model", ["batchnorm", "roaf"])
def test_other_networks(call, model, tmp_path):
    arguments = ["--model", model, "--epochs", 8, "--no-baseline", "--out", tmp_path]
    status, printed = call(*SMALL, QUICK, *arguments)
    assert status == 0, printed
    result = json.loads((tmp_path / "result.json").read_text())["result"]
    assert result["accuracy"]["ours"]["test"] > 0.85
    assert max(result["largest_difference"].values()) < 1e-4
    assert (result["orthogonality_error"] is None) == (model == "roaf")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bsnn_cnn", "batchnorm_cnn", "roaf_cnn"])
def test_networks_of_images(call, model, tmp_path):
    """With 16 filters and a learning rate of their own, by default."""
    arguments = ["--model", model, "--depth", 8, "--batch-size", 50, "--epochs", 4]
    status, printed = call(*arguments, "--no-baseline", "--out", tmp_path)
    assert status == 0, printed
    assert "8 layers of 16 filters" in printed
    record = json.loads((tmp_path / "result.json").read_text())
    settings, result = record["settings"], record["result"]
    rates = {"bsnn_cnn": 0.1, "batchnorm_cnn": 0.05, "roaf_cnn": 0.01}
    assert settings["units"] == 16 and settings["learning_rate"] == rates[model]
    assert result["accuracy"]["ours"]["test"] > 0.9
    assert max(result["largest_difference"].values()) < 1e-4
    assert (result["orthogonality_error"] is None) == (model == "roaf_cnn")


def test_the_plain_network_of_the_same_size():
    """A CNN has the same stem, and as many convolutions of as many filters."""
    for name, kind in (("bsnn", "Dense"), ("bsnn_cnn", "Conv2D")):
        parser = ArgumentParser()
        _train.add_arguments(parser)
        arguments = parser.parse_args(["--model", name, "--depth", "7"])
        arguments = _run.with_defaults(arguments)
        plain = _networks.plain_network(arguments)
        ours = _networks.deep_network(arguments)
        (stack,) = (z for z in plain.layers if isinstance(z, DepthStack))
        (deep,) = (z for z in ours.layers if isinstance(z, DepthStack))
        assert type(stack.block).__name__ == kind and stack.depth == deep.depth == 7
        assert stack.output.shape == deep.output.shape
        assert plain.output_shape == ours.output_shape == (None, 10)


@pytest.mark.slow
def test_augmented_images(call, tmp_path, monkeypatch):
    """In training, with those of a resumed run, and nowhere else."""
    loaded, load = [], datasets.load

    def recorded(name, split, batch_size, *args, **kwargs):
        loaded.append((split, kwargs.get("augment", False), kwargs.get("start")))
        return load(name, split, batch_size, *args, **kwargs)

    monkeypatch.setattr(datasets, "load", recorded)
    arguments = [*RESUMED, "--epochs", 2, "--augment", "--out", tmp_path]
    status, printed = call(*arguments)
    assert status == 0, printed
    augmented = [call for call in loaded if call[1]]
    assert augmented == [("train[:90%]", True, None), ("train[:90%]", True, 0)]
    extend(tmp_path, 3)
    status, printed = call(*arguments, "--epochs", 3, "--resume")
    assert status == 0, printed
    assert loaded[-1] == ("train[:90%]", True, 2 * (1350 // 50))
    status, printed = call(*arguments, "--epochs", 3, "--resume", "--no-augment")
    assert status == 2 and "had {'augment': True}" in printed


@pytest.mark.slow
def test_killed_in_an_epoch_it_resumes_after_the_last_one(call, tmp_path):
    command = [sys.executable, str(SCRIPT), *RESUMED]
    command += ["--epochs", "400", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    history = tmp_path / "history.csv"
    while time.time() < deadline:
        if history.exists() and len(history.read_text().split("\n")) > 4:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = 1350 // 50
    done = BackupAndRestore(tmp_path / "checkpoint").batches // steps
    assert 2 <= done < 400, "it was not killed in the middle"
    # An epoch is logged before its checkpoint is there.
    assert len(epochs_in(tmp_path)) - done in (0, 1)

    extend(tmp_path, done + 3)  # so that the test ends
    arguments = [*RESUMED, "--epochs", done + 3, "--out", tmp_path, "--resume"]
    status, printed = call(*arguments)
    assert status == 0, printed
    assert f"Resumed: epochs 1 to {done} are done" in printed
    assert epochs_in(tmp_path) == list(range(done + 3))


@pytest.mark.slow
def test_killed_in_a_checkpoint_it_resumes_from_the_one_before(call, two):
    folder, arguments = two
    unfinished = folder / "checkpoint" / "training.unfinished"
    unfinished.write_bytes(b"PK")
    with open(folder / "history.csv", "a") as history:
        history.write("2,of an epoch that was lost\n")
    extend(folder, 3)
    status, printed = call(*arguments, "--epochs", 3)
    assert status == 0, printed
    assert "Resumed: epochs 1 to 2 are done" in printed
    assert epochs_in(folder) == [0, 1, 2] and not unfinished.exists()


@pytest.mark.slow
def test_resumed_when_it_is_over_it_trains_no_more(call, two):
    folder, arguments = two
    status, printed = call(*arguments)
    assert status == 0, printed
    assert epochs_in(folder) == [0, 1]


@pytest.mark.slow
def test_a_checkpoint_that_is_damaged(call, two):
    folder, arguments = two
    path = folder / "checkpoint" / "training.npz"
    path.write_bytes(path.read_bytes()[:100])
    status, printed = call(*arguments)
    assert status == 2 and "training.npz' is damaged" in printed


def test_an_out_that_is_in_use(call, tmp_path):
    (tmp_path / "precious").write_text("model")
    status, printed = call(*SMALL, "--out", tmp_path)
    assert status == 2 and "is not empty" in printed
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_an_out_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, printed = call(*SMALL, "--out", tmp_path / "file" / "below")
    assert status == 2 and "--out" in printed and "cannot be written" in printed


def test_resume_without_a_checkpoint(call, tmp_path):
    status, printed = call(*SMALL, "--resume", "--out", tmp_path / "nothing")
    assert status == 2 and "no checkpoint" in printed


@pytest.mark.slow
def test_resume_with_other_settings(call, two):
    _, arguments = two
    status, printed = call(*arguments, "--depth", 9)
    assert status == 2 and "had {'depth': 8}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "letters"], "`name` must be one of"),
        (["--epochs", "0"], "--epochs"),
        (["--units", "0"], "`units`"),
        (["--depth", "0"], "`depth`"),
        (["--eta", "1"], "`eta`"),
        (["--activation", "nope"], "nope"),
        (["--batch-size", "5000"], "`batch_size`"),
        (["--model", "resnet"], "invalid choice"),
        (["--model", "roaf", "--c", "9"], "`c`"),
        (["--model", "roaf", "--filter", "none"], "`filter`"),
    ],
)
def test_bad_arguments_leave_nothing_in_the_way(call, arguments, message, tmp_path):
    out = tmp_path / "out"
    status, printed = call(*SMALL, *arguments, "--out", out)
    assert status == 2 and message in printed
    assert not out.exists() or not any(out.iterdir())


@pytest.mark.slow
def test_the_seed_repeats_a_run(tmp_path):
    """The same weights, and the same batches."""
    parser = ArgumentParser()
    _train.add_arguments(parser)
    arguments = [*SMALL, QUICK, "--seed", "3", "--out", str(tmp_path)]
    arguments = _run.with_defaults(parser.parse_args(arguments))
    weights = []
    for _ in range(2):
        data, model = _run.prepared(arguments)
        model.fit(data["fit"], steps_per_epoch=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        assert abs(a - b).max() < 1e-5
