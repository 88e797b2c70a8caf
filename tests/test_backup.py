"""`BackupAndRestore`: a run that was broken off ends as an unbroken one."""

import gc
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from backends import HAS_XLA
from scripts import ROOT, result

from keras_bsnn import datasets
from keras_bsnn.callbacks import BackupAndRestore, _file
from keras_bsnn.layers import DepthStack, OrthogonalDense
from keras_bsnn.optimizers import Stiefel

is_tensorflow = keras.backend.backend() == "tensorflow"
# Without jit, JAX would compile the loop of a stack anew in every step.
JIT = [False, True] if is_tensorflow else [HAS_XLA]
STEPS = 5  # in an epoch
EPOCHS = 3
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("kills_*.json"))


@pytest.fixture(autouse=True)
def no_iterators_are_left():
    """Of fits that were broken off: old ones of tf.data take up to a minute to end."""
    yield
    gc.collect()


class Broken(Exception):
    pass


class BreakAfter(keras.callbacks.Callback):
    """Breaks `fit` off, as an interrupt would."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Broken


class Epochs(keras.callbacks.Callback):
    """Which ones this process trains."""

    def __init__(self):
        super().__init__()
        self.numbers = []

    def on_epoch_begin(self, epoch, logs=None):
        self.numbers.append(epoch)


def network(optimizer=None, jit_compile=JIT[0], units=8, **settings):
    """With random numbers; the weights are those of one seed."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2, seed=0),  # PyTorch keeps none without a seed
            OrthogonalDense(units, "gp_tanh", **settings),
            keras.layers.Dense(10),
        ]
    )
    return compiled(model, optimizer or keras.optimizers.Adam(0.01), jit_compile)


def deep_network():
    """With random numbers in each layer of a stack."""
    keras.utils.set_random_seed(0)
    block = keras.Sequential([OrthogonalDense(8), keras.layers.Dropout(0.1)])
    layers = [keras.layers.Flatten(), keras.layers.Dense(8), DepthStack(block, 3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(10)])
    return compiled(model, keras.optimizers.Adam(0.01), JIT[0])


def compiled(model, optimizer, jit_compile):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return model


def fit(model, *callbacks, backup=None, **settings):
    start = backup.batches if backup else 0
    return model.fit(
        datasets.load("digits", "train", 16, seed=0, start=start),
        shuffle=False,  # the pipeline does
        steps_per_epoch=STEPS,
        callbacks=[*callbacks, *([backup] if backup else [])],
        **{"epochs": EPOCHS, "verbose": 0, **settings},
    )


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_same(model, other):
    for these, those in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(these, those)


def broken_off(folder, batches, make=network, **settings):
    with pytest.raises(Broken):
        backup = BackupAndRestore(folder, **settings)
        fit(make(), BreakAfter(batches), backup=backup)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "save_freq", "broken_after", "saved"),
    [
        (network, "epoch", 8, 5),
        (network, 2, 3, 2),
        (deep_network, 2, 10, 8),  # in the last step of an epoch
        (network, 3, 13, 12),
    ],
)
def test_the_end_is_that_of_an_unbroken_run(
    make, save_freq, broken_after, saved, tmp_path
):
    unbroken, resumed = make(), make()
    expected = fit(unbroken)
    broken_off(tmp_path, broken_after, make, save_freq=save_freq)
    backup = BackupAndRestore(tmp_path, save_freq, delete_checkpoint=False)
    assert backup.batches == saved
    trained = Epochs()
    found = fit(resumed, trained, backup=backup)
    assert_same(resumed, unbroken)
    assert trained.numbers == [*range(saved // STEPS, EPOCHS)]
    assert found.epoch == expected.epoch == [*range(EPOCHS)]
    if saved % STEPS == 0:
        assert found.history == expected.history
    assert backup.batches == EPOCHS * STEPS


@pytest.mark.slow
def test_the_history_is_that_of_the_whole_run(tmp_path):
    """Of three processes, with values that are not there in each epoch."""
    x, y = (np.array(part) for part in next(iter(datasets.load(batch_size=80))))
    settings = {"batch_size": 16, "shuffle": False, "epochs": 4, "verbose": 0}
    settings |= {"validation_data": (x, y), "validation_freq": 2}
    expected = network().fit(x, y, **settings)
    for batches in (STEPS + 1, 2 * STEPS + 1):
        with pytest.raises(Broken):
            callbacks = [BreakAfter(batches), BackupAndRestore(tmp_path)]
            network().fit(x, y, callbacks=callbacks, **settings)
    found = network().fit(x, y, callbacks=[BackupAndRestore(tmp_path)], **settings)
    assert found.epoch == expected.epoch == [0, 1, 2, 3]
    assert found.history == expected.history and len(found.history["val_loss"]) == 2


@pytest.mark.slow
def test_what_keras_own_leaves_out(tmp_path):
    """The states of random numbers: why this package has a callback of its own."""

    def run(*more):
        model = network()
        x, y = (np.array(part) for part in next(iter(datasets.load(batch_size=80))))
        kwargs = {"batch_size": 16, "shuffle": False, "epochs": EPOCHS, "verbose": 0}
        model.fit(x, y, callbacks=[*more], **kwargs)
        return model

    unbroken = run()
    for callback in (keras.callbacks.BackupAndRestore, BackupAndRestore):
        folder = tmp_path / callback.__module__
        with pytest.raises(Broken):
            run(BreakAfter(STEPS + 1), callback(folder))
        resumed = run(callback(folder))
        pairs = zip(state(resumed), state(unbroken), strict=True)
        is_same = all(np.array_equal(a, b) for a, b in pairs)
        assert is_same == (callback is BackupAndRestore)


OPTIMIZERS = {
    "stiefel": lambda: Stiefel(keras.optimizers.SGD(0.1, momentum=0.9)),
    "averages": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), dynamic_growth_steps=3
    ),
    "several": lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(0.01), {".*orthogonal.*": keras.optimizers.SGD(0.1)}
        )
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_of_each_optimizer_all_is_restored(name, tmp_path):
    def make():
        return network(OPTIMIZERS[name]())

    unbroken, resumed = make(), make()
    fit(unbroken)
    broken_off(tmp_path, 8, make, save_freq=3)
    fit(resumed, backup=BackupAndRestore(tmp_path))
    assert_same(resumed, unbroken)


@pytest.mark.slow
def test_in_bfloat16(tmp_path):
    """Of which numpy does not know the name."""

    def make():
        return network(keras.optimizers.SGD(0.01), dtype="bfloat16")

    unbroken, resumed = make(), make()
    fit(unbroken)
    broken_off(tmp_path, 7, make)
    fit(resumed, backup=BackupAndRestore(tmp_path))
    assert_same(resumed, unbroken)


@pytest.mark.slow
@pytest.mark.skipif(not is_tensorflow, reason="a strategy of TensorFlow")
def test_under_a_strategy(replicas, tmp_path):
    def make():
        with replicas.scope():
            return network(keras.optimizers.SGD(0.1, momentum=0.9))

    unbroken = make()
    fit(unbroken)
    broken_off(tmp_path, 7, make)
    resumed = make()
    fit(resumed, backup=BackupAndRestore(tmp_path))
    assert_same(resumed, unbroken)


@pytest.mark.slow
def test_when_it_is_over_nothing_is_left(tmp_path):
    model, folder = network(), tmp_path / "new" / "backup"
    backup = BackupAndRestore(folder)
    fit(model, backup=backup, epochs=1)
    assert not folder.exists() and backup.batches == 0
    broken_off(folder, 8)
    (folder / "training.unfinished").write_bytes(b"PK")
    (folder / "notes").write_text("mine")
    fit(model, backup=backup)
    assert [path.name for path in folder.iterdir()] == ["notes"]
    assert len(fit(model, epochs=2).epoch) == 2, "the next `fit` begins anew"


@pytest.mark.slow
def test_a_run_that_is_over_trains_no_more(tmp_path):
    model, again = network(), network()
    fit(model, backup=BackupAndRestore(tmp_path, delete_checkpoint=False))
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    trained = Epochs()
    assert len(fit(again, trained, backup=backup).epoch) == EPOCHS
    assert trained.numbers == []
    assert_same(again, model)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [True, False])
def test_another_callback_may_stop_a_run_that_was_resumed(stops, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if stops:
                self.model.stop_training = True

    broken_off(tmp_path, 3, save_freq=2)
    history = fit(network(), Stop(), backup=BackupAndRestore(tmp_path))
    assert history.epoch == ([0] if stops else [0, 1, 2])


def test_a_damaged_file_is_told_of(tmp_path):
    broken_off(tmp_path, 8)
    path = tmp_path / "training.npz"
    path.write_bytes(path.read_bytes()[:-40])
    model = network()
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(ValueError, match=r"training\.npz' is damaged .* remove it"):
        fit(model, backup=BackupAndRestore(tmp_path))
    for these, those in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(these, those)


@pytest.mark.slow
def test_no_byte_is_wrong_unnoticed(tmp_path):
    """Each is told of, unless the values are right all the same."""
    path = tmp_path / "training.npz"
    saved = [keras.Variable(np.arange(n, dtype="float32")) for n in (6, 9)]
    _file.save(path, saved, {"epoch": 1})
    content = path.read_bytes()
    noticed = 0
    found = [keras.Variable(keras.ops.zeros(v.shape)) for v in saved]
    for damaged in damages(content):
        path.write_bytes(damaged)
        try:
            _file.restore(path, found)
        except ValueError as error:
            assert "is damaged" in str(error) or "another model" in str(error)
            assert all(np.all(np.asarray(v) == 0) for v in found)
            noticed += 1
        else:
            for these, those in zip(found, saved, strict=True):
                np.testing.assert_array_equal(these, those)
                these.assign(keras.ops.zeros(these.shape))
    assert noticed > 500


def damages(content):
    """The file cut at any place; any byte with one bit turned, or all of them."""
    for i in range(len(content)):
        if i % 3 == 0:
            yield content[:i]
        else:
            turned = bytearray(content)
            turned[i] ^= (1 << i % 8) if i % 3 == 1 else 255
            yield bytes(turned)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network(units=9), r"of shape \(64, 8\) .* has \(64, 9\)"),
        (lambda: network("sgd"), "holds 15 variables, and there are 7"),
    ],
)
def test_a_backup_of_another_model(make, message, tmp_path):
    broken_off(tmp_path, 8)
    model = make()
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(ValueError, match=message):
        fit(model, backup=BackupAndRestore(tmp_path))
    for these, those in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(these, those)


def test_data_that_do_not_begin_in_the_middle(tmp_path):
    broken_off(tmp_path, 3, save_freq=2)
    x, y = np.zeros((32, 8, 8, 1)), np.zeros(32)
    with pytest.raises(ValueError, match="after 2 of its batches"):
        network().fit(x, y, callbacks=[BackupAndRestore(tmp_path)], verbose=0)


def test_epochs_of_unknown_length(tmp_path):
    backup = BackupAndRestore(tmp_path, save_freq=2)
    data = datasets.load("digits", "train[:64]", 16).filter(lambda x, y: True)
    with pytest.raises(ValueError, match=r"steps_per_epoch.*save_freq=2"):
        network().fit(data, callbacks=[backup], verbose=0)


@pytest.mark.parametrize("save_freq", [0, "batch", 1.5, None, False])
def test_bad_frequencies(save_freq):
    with pytest.raises(ValueError, match=f"`save_freq` .*={save_freq!r}"):
        BackupAndRestore("folder", save_freq)


@pytest.mark.parametrize("folder", ["", None])
def test_no_folder(folder):
    with pytest.raises(ValueError, match="`backup_dir` must be a folder"):
        BackupAndRestore(folder)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """Some of the kills of which `benchmarks/kills.py` has hundreds."""
    out = tmp_path / "kills.json"
    command = [sys.executable, "benchmarks/kills.py", "--out", str(out)]
    command += ["--contenders", "ours, every 4 batches", "--kills", "2"]
    command += ["--epochs", "3", "--depth", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    (row,) = result(out)
    assert sum(row["kills"].values()) >= 2 and row["damaged_files"] == 0
    assert row["equal"] == row["runs"] > 0


def test_what_is_said_of_kills():
    rows = [row for path in RECORDS for row in json.loads(path.read_text())["result"]]
    ours = [row for row in rows if row["contender"].startswith("ours")]
    for row in rows:
        if row in ours:
            assert row["damaged_files"] == 0 and row["equal"] == row["runs"]
        else:
            assert row["equal"] < row["runs"]
    kills = sum(sum(row["kills"].values()) for row in ours)
    saving = sum(row["kills"]["saving"] for row in ours)
    page = ROOT / "docs" / "results" / "weights.md"
    words = " ".join(page.read_text().split())
    assert kills >= 200 and f"of {kills} kills, {saving} of them while it" in words
