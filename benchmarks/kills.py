r"""Kills training runs at random moments: do they end as if nothing had been?

    python benchmarks/kills.py --kills 100
    KERAS_BACKEND=jax python benchmarks/kills.py --kills 50 \
        --page docs/results/weights.md

A run is begun again until it ends; each time it is sent SIGKILL after a while, drawn at
random within its start, an epoch or the saving of a backup. Then the files that it left
are read. What a run ends with, all variables of model and optimizer, is compared with
an unbroken run bit by bit.

Each attempt is a fork of this process, which imports all that it needs, and computes
nothing.
"""

import collections
import json
import os
import random
import shutil
import signal
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import h5py
import keras
import numpy as np
import tensorflow as tf
from runner import BACKENDS, Choice, Experiment, columns, tensorflow_first

from keras_bsnn.callbacks import BackupAndRestore
from keras_bsnn.layers import DepthStack, OrthogonalDense

PHASES = {"start": 0.2, "epoch": 0.3, "saving": 0.5}  # shares of the kills
STEPS, BATCH_SIZE, UNITS = 6, 32, 32
BACKUP, END, ERROR = "backup", "end.npz", "error.txt"


class Contender(NamedTuple):
    """A callback, of a folder and keywords, that is to bring a run back."""

    callback: type
    keywords: dict
    dropout: float = 0.1
    every: int = STEPS  # batches between backups


KERAS = keras.callbacks.BackupAndRestore
CONTENDERS = {
    "ours": Contender(BackupAndRestore, {}),
    "ours, every 4 batches": Contender(BackupAndRestore, {"save_freq": 4}, every=4),
    "Keras": Contender(KERAS, {}),
    "Keras, no dropout": Contender(KERAS, {}, 0.0),
    "Keras, double, no dropout": Contender(KERAS, {"double_checkpoint": True}, 0.0),
}


def run(args, contender):
    """Counts for one contender, over as many runs as its kills take."""
    start, counts = time.perf_counter(), collections.Counter()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(CONTENDERS[contender], args, Path(folder), draw)
        while sum(runs.killed.values()) < args.kills:
            counts[runs.run()] += 1
    return {
        "kills": {phase: runs.killed[phase] for phase in PHASES},
        "damaged_files": runs.damaged,
        "runs": sum(counts.values()),
        **{end: counts[end] for end in ("equal", "different", "cannot go on")},
        "errors": dict(runs.errors),
        "seconds": round(time.perf_counter() - start),
    }


class Runs:
    """Runs of one contender in a folder, beside an unbroken one."""

    def __init__(self, contender, args, folder, draw):
        self.contender, self.args, self.draw = contender, args, draw
        self.folder = folder / "run"
        self.killed, self.errors = collections.Counter(), collections.Counter()
        self.damaged = 0
        unbroken = self._attempt()
        assert unbroken.wait() == 0, "the unbroken run failed"
        self.seconds = unbroken.seconds
        self.expected = self._end()

    def run(self):
        """Begins a run again until it ends; says how."""
        shutil.rmtree(self.folder)
        while True:
            attempt = self._attempt()
            phase = self.draw.choices([*PHASES], PHASES.values())[0]
            entry = 1 if phase == "start" else self.draw.randint(1, 4)
            moment = self.draw.uniform(0, np.median(self.seconds[phase]))
            status = attempt.kill(phase, entry, moment)
            if status == 0:
                return "equal" if self._is_equal() else "different"
            if status != -signal.SIGKILL:
                self.errors[(self.folder / ERROR).read_text()] += 1
                return "cannot go on"
            self.killed[attempt.phase] += 1
            self.damaged += sum(map(is_damaged, (self.folder / BACKUP).glob("*")))

    def _attempt(self):
        return Attempt(self.contender, self.args, self.folder)

    def _end(self):
        with np.load(self.folder / END) as end:
            return [end[name] for name in end.files]

    def _is_equal(self):
        pairs = zip(self._end(), self.expected, strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)


class Attempt:
    """A process that trains, and tells through a pipe which phase it enters.

    Attributes:
        phase: where it is.
        seconds: lists of seconds by phase, of those that it went through.
    """

    def __init__(self, *arguments):
        self.phase, self.seconds = "start", collections.defaultdict(list)
        self.pipe, end = os.pipe()
        self.since = time.perf_counter()
        self.process = os.fork()
        if self.process == 0:
            try:
                train(*arguments, tell=lambda phase: os.write(end, phase[:2].encode()))
                os._exit(0)
            except Exception as error:
                (arguments[-1] / ERROR).write_text(type(error).__name__)
            finally:
                os._exit(1)
        os.close(end)

    def wait(self):
        """Until it ends; returns its status, negative for a signal."""
        while self._listen():
            pass
        os.close(self.pipe)
        _, status = os.waitpid(self.process, 0)
        return os.waitstatus_to_exitcode(status)

    def kill(self, phase, entry, moment):
        """Kills it `moment` seconds behind its `entry`-th entry into a phase."""
        alive = True
        while alive and (phase != self.phase or entry > 1):
            before = len(self.seconds[phase])
            alive = self._listen()
            entry -= len(self.seconds[phase]) - before
        if alive:
            time.sleep(moment)
            os.kill(self.process, signal.SIGKILL)
        return self.wait()

    def _listen(self):
        """Waits for one phase; whether the process lives."""
        told = os.read(self.pipe, 2).decode()
        if told:
            now = time.perf_counter()
            self.seconds[self.phase].append(now - self.since)
            self.since = now
            self.phase = next(phase for phase in PHASES if phase[:2] == told)
        return bool(told)


class Tell(keras.callbacks.Callback):
    """Tells of a phase when the callback next to it begins to save, or has done so."""

    def __init__(self, tell, phase, every):
        super().__init__()
        self.enter = lambda: tell(phase)
        self.every = every

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * STEPS

    def on_train_batch_end(self, batch, logs=None):
        if self.every < STEPS and (self.before + batch + 1) % self.every == 0:
            self.enter()

    def on_epoch_end(self, epoch, logs=None):
        self.enter()


def train(contender, args, folder, tell):
    """What each attempt does, from wherever the one before was killed."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    keras.utils.set_random_seed(args.seed)
    model = network(args.depth, contender.dropout)
    backup = contender.callback(
        folder / BACKUP, delete_checkpoint=False, **contender.keywords
    )
    model.fit(
        data(getattr(backup, "batches", 0)),
        steps_per_epoch=STEPS,
        epochs=args.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            Tell(tell, "saving", contender.every),
            backup,
            keras.callbacks.LambdaCallback(on_train_begin=lambda logs: tell("epoch")),
            Tell(tell, "epoch", contender.every),
        ],
    )
    variables = [*model.variables, *model.optimizer.variables]
    folder.mkdir(exist_ok=True)
    np.savez(folder / END, *map(keras.ops.convert_to_numpy, variables))


def network(depth, dropout):
    model = keras.Sequential(
        [
            keras.Input((UNITS,)),
            keras.layers.Dropout(dropout, seed=0),
            DepthStack(OrthogonalDense(UNITS, "gp_tanh"), depth),
            keras.layers.Dense(4),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    jit_compile = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.Adam(0.001), loss, jit_compile=jit_compile)
    return model


def data(start):
    """The same batches in each epoch, without end."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(STEPS * BATCH_SIZE, UNITS)).astype("float32")
    y = np.argmax(x[:, :4], axis=1)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)
    return batches.repeat().skip(start)


def is_damaged(path):
    """Whether a file cannot be read. One with another ending may hold anything."""
    ending = path.with_suffix("").suffix if path.suffix == ".bkp" else path.suffix
    try:
        READERS.get(ending, str)(path)
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile):
        return True
    return False


def read_arrays(path):
    with np.load(path) as arrays:
        for name in arrays.files:
            arrays[name]


def read_weights(path):
    with h5py.File(path) as file:
        file.visititems(lambda _, x: x[()] if isinstance(x, h5py.Dataset) else None)


def read_json(path):
    json.loads(path.read_text())


READERS = {".npz": read_arrays, ".h5": read_weights, ".json": read_json}


TABLE = {
    "": lambda row: f"{row['contender']}, {BACKENDS[row['backend']]}",
    "kills": lambda row: str(sum(row["kills"].values())),
    "of these while saving": "{kills[saving]}",
    "damaged files": "{damaged_files}",
    "runs": "{runs}",
    "as unbroken": "{equal}",
    "other weights": "{different}",
    "could not go on": lambda row: str(row["cannot go on"]),
}

if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        rows={"contender": "contenders"},
        arrange=tensorflow_first,
        options={
            "contenders": Choice(CONTENDERS),
            **{"kills": 200, "epochs": 12, "depth": 100, "seed": 0},
        },
        record="kills_{backend}.json",
    ).main()
