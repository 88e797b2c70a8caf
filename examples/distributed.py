"""Trains one network over several processes and devices, and once more by one alone.

    python examples/distributed.py --processes 2
    python examples/distributed.py --processes 2 --kill 3
    python examples/distributed.py --strategy depth --devices 4 --memory
    python examples/distributed.py --strategy mirrored --devices 2

The batch is the same for any number of them, so that the loss is, too:

- `data` (JAX): each device has its share of the batch, and the whole network;
- `depth` (JAX): it also keeps its share of the layers only, and of the optimizer's
  momentum; a layer is sent to the others when they come to it;
- `mirrored` (TensorFlow): as `data`, in one process.

If a process is killed, all go on from the last epoch in their folder. On several
machines, start one worker on each, with a folder that all of them see:

    KERAS_BACKEND=jax python examples/distributed.py --processes 2 --worker 0 \\
        --address 10.0.0.1:1234 --out /shared/run
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
from _processes import free_address, run_together
from rich.console import Console
from rich.table import Table

from keras_bsnn import datasets, manifolds, models
from keras_bsnn._record import environment
from keras_bsnn.callbacks import BackupAndRestore, Retract
from keras_bsnn.layers import DepthStack
from keras_bsnn.optimizers import StiefelMuon

BACKENDS = {"data": "jax", "depth": "jax", "mirrored": "tensorflow"}
MODELS = {
    "bsnn": models.bsnn_mlp,
    "batchnorm": models.batchnorm_mlp,
}
# Each weight of a DepthStack, but neither its output nor what is in its block.
STACKED = r"(.*/)?depth_stack[^/]*/(?!output$)[^/]*"
SPLITS = ("train", "test")
TRAINING_IMAGES = 1500


def main(arguments=None):
    parser = argument_parser()
    args = parser.parse_args(arguments)
    devices = args.processes * args.devices
    if args.batch_size % devices or (args.strategy == "depth" and args.depth % devices):
        parser.error(f"--batch-size, and --depth, must be multiples of {devices}")
    if args.strategy == "mirrored" and args.processes > 1:
        parser.error("--strategy mirrored: Keras supports one process")
    if args.worker is not None:
        work(args)
        return
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"--out: {args.out} is not empty")
    launch(args, sys.argv[1:] if arguments is None else arguments)


def argument_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--strategy", choices=BACKENDS, default="data")
    add("--processes", type=int, default=1)
    add("--devices", type=int, default=1, help="of each process; CPUs are divided")
    add("--model", choices=MODELS, default="bsnn")
    add("--depth", type=int, default=200)
    add("--units", type=int, default=64)
    add("--batch-size", type=int, default=120, help="of all devices together")
    add("--epochs", type=int, default=10)
    add("--learning-rate", type=float, default=0.05)
    add("--checkpoint-every", type=int, help="of the DepthStack: layers sent at once")
    add("--seed", type=int, default=0)
    add("--alone", action=argparse.BooleanOptionalAction, default=True)
    add("--kill", type=int, help="have a process killed in the epoch after this one")
    add("--restarts", type=int, default=3, help="at most, if one is killed")
    add("--timeout", type=int, default=600, help="seconds of each of the two runs")
    add("--pin", action="store_true", help="process i to core i, and no other")
    add("--memory", action="store_true", help="look what a step takes (JAX)")
    add("--out", type=Path, default=Path("runs/distributed"))
    add("--data", type=Path, help="a copy of the images, made if it is not there")
    add("--worker", type=int, help="be this one of the processes")
    add("--address", help="of worker 0, with a free port")
    return parser


# The process that starts the others.


def launch(args, arguments):
    """Starts the workers, then one alone; compares them."""
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.data or args.out / "digits.npz"
    if not data.exists():
        np.savez(data, **load_digits())
    arguments = [*arguments, "--data", str(data)]
    result = {"together": run(args, arguments, "together")}
    if args.alone:
        arguments += ["--processes", "1", "--devices", "1", "--kill", "0"]
        alone = argument_parser().parse_args(arguments)
        result["alone"] = run(alone, arguments, "alone")
        result["largest_difference"] = float(np.max(differences(result)))
    text = json.dumps({**record_of(args), "result": result}, indent=1)
    (args.out / "result.json").write_text(text + "\n")
    show(result, args)


def run(args, arguments, name):
    """What the workers found, in a folder of their own."""
    folder = args.out / name
    folder.mkdir()

    def commands():
        command = [sys.executable, __file__, *arguments, "--out", str(folder)]
        command += ["--address", free_address(), "--worker"]
        return [[*command, str(i)] for i in range(args.processes)]

    variables = {**os.environ, "KERAS_BACKEND": BACKENDS[args.strategy]}
    log = folder / "workers.log"
    restarts = run_together(commands, variables, log, args.timeout, args.restarts)
    found = json.loads((folder / "result.json").read_text())
    return {**found, "restarts": restarts}


def record_of(args):
    places = ("out", "data", "worker", "address")
    return {
        **environment(),
        "backend": BACKENDS[args.strategy],
        "settings": {k: v for k, v in vars(args).items() if k not in places},
    }


def differences(result):
    """Of the losses after each epoch, relative."""
    together, alone = (result[name]["losses"] for name in ("together", "alone"))
    return np.abs(np.divide(together, alone) - 1)


def show(result, args):
    table = Table(title=f"{args.strategy}: {args.processes} x {args.devices} devices")
    names = [name for name in ("together", "alone") if name in result]
    for head in ("", *names, *["difference"] * args.alone):
        table.add_column(head, justify="right")
    last = [f"{x:.1e}" for x in differences(result)] if args.alone else []
    for i, losses in enumerate(zip(*(result[n]["losses"] for n in names), strict=True)):
        cells = [f"{loss:.6f}" for loss in losses]
        table.add_row(f"loss, epoch {i + 1}", *cells, *last[i : i + 1])
    labels = {
        "accuracy": "accuracy, test images",
        "orthogonality_error": "orthogonality error",
        "samples_per_second": "samples a second",
        "megabytes_kept": "MB on a device: weights, optimizer",
        "megabytes_of_step": "MB on a device: a step, all in all",
        "resumed_after": "killed after epoch, and started again",
    }
    for key, label in labels.items():
        cells = [result[name].get(key) for name in names]
        if any(cells):
            table.add_row(label, *("" if c is None else f"{c:.3g}" for c in cells))
    Console(width=100).print(table)


# A worker.


def work(args):
    """Trains as one process of `args.processes`, and reports if it is the first."""
    if args.data:  # one that was launched ends also where its launcher is gone
        signal.alarm(args.timeout)
    if args.pin:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[args.worker % len(cores)]})
    args.out.mkdir(parents=True, exist_ok=True)
    with scope(args):
        model = compiled(args)
        data = np.load(args.data) if args.data else load_digits()
        result = {**fit(model, data, args), **measured(model, data, args)}
    if args.worker == 0:
        args.out.mkdir(exist_ok=True)  # the backup was all that was in it, and is gone
        (args.out / "result.json").write_text(json.dumps(result))


def scope(args):
    """The context in which variables and batches are divided among devices."""
    if args.strategy == "mirrored":
        return mirrored(args.devices)
    import jax

    flag = f"--xla_force_host_platform_device_count={args.devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    if args.processes > 1:
        # As keras.distribution.initialize, which would listen at every address.
        jax.distributed.initialize(
            args.address,
            args.processes,
            args.worker,
            coordinator_bind_address=args.address,
        )
    if jax.device_count() == 1:
        return contextlib.nullcontext()
    # Each process feeds what is its own: Keras can only divide a `tf.data.Dataset`.
    mesh = keras.distribution.DeviceMesh((jax.device_count(),), ["batch"])
    if args.strategy == "data":
        return keras.distribution.DataParallel(mesh, auto_shard_dataset=False).scope()
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[STACKED] = ("batch",)
    return keras.distribution.ModelParallel(
        layout_map=layouts, auto_shard_dataset=False
    ).scope()


def mirrored(count):
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, logical)
    if count == 1:
        return contextlib.nullcontext()
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(devices[:count]).scope()


def compiled(args):
    shape = datasets.IMAGE_SETS["digits"].shape
    # A seed, for all processes must draw the same weights.
    network = MODELS[args.model](
        args.depth, args.units, input_shape=shape, seed=args.seed
    )
    (stack,) = (layer for layer in network.layers if isinstance(layer, DepthStack))
    stack.checkpoint_every = args.checkpoint_every
    network.compile(
        StiefelMuon(learning_rate(args)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=args.strategy != "mirrored",  # it would fail
    )
    return network


def learning_rate(args):
    steps = args.epochs * (TRAINING_IMAGES // args.batch_size)
    return keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)


def load_digits():
    """All images and labels, by split."""
    arrays = {}
    for split in SPLITS:
        batch = next(iter(datasets.load("digits", split, 10_000, shuffle=False)))
        arrays |= zip((f"{split}_x", f"{split}_y"), map(np.asarray, batch), strict=True)
    return arrays


def fit(model, data, args):
    backup = BackupAndRestore(args.out)
    steps = TRAINING_IMAGES // args.batch_size
    done = backup.batches // steps  # epochs of those who were killed
    speed = Speed(steps * args.batch_size)
    callbacks = [speed, Retract(), backup]
    if args.kill and not done and args.worker == args.processes - 1:
        callbacks.append(KilledAfter(args.kill))
    own = own_images(done, args)
    history = model.fit(
        data["train_x"][own],
        data["train_y"][own],
        batch_size=args.batch_size // args.processes,
        steps_per_epoch=steps,
        epochs=args.epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    return {
        "resumed_after": done,
        "losses": history.history["loss"],
        "samples_per_second": speed.median(),
    }


def own_images(done, args):
    """Those of this process, in all epochs to come; an epoch tells their order."""
    first = min(done, args.epochs - 1)  # Keras wants data, also where it is over
    orders = (
        np.random.default_rng([args.seed, epoch]).permutation(TRAINING_IMAGES)
        for epoch in range(first, args.epochs)
    )
    return np.concatenate([share(order, args.batch_size, args) for order in orders])


def share(order, batch_size, args):
    """This process's part of each batch; what makes no whole batch is left out."""
    count = len(order) // batch_size
    parts = order[: count * batch_size].reshape(count, args.processes, -1)
    return parts[:, args.worker].ravel()


class KilledAfter(keras.callbacks.Callback):
    """As a machine that loses power, in the epoch after some."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self.is_due = epoch == self.epochs

    def on_train_batch_end(self, batch, logs=None):
        if self.is_due:
            os.kill(os.getpid(), signal.SIGKILL)


class Speed(keras.callbacks.Callback):
    """Samples per second in each epoch."""

    def __init__(self, samples):
        super().__init__()
        self.samples = samples
        self.found = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(self.samples / (time.perf_counter() - self.start))

    def median(self):
        """Without the first epoch, which compiles; `None` if there is no other."""
        return float(np.median(self.found[1:])) if self.found[1:] else None


# What there is to say of a trained model.


def measured(model, data, args):
    kernels = manifolds.constrained(model.trainable_variables)
    errors = (manifold.error(kernel) for kernel, manifold in kernels)
    errors = [float(keras.ops.max(error)) for error in errors]
    images, devices = len(data["test_x"]), args.processes * args.devices
    own = share(np.arange(images), images - images % devices, args)
    x, y = data["test_x"][own], data["test_y"][own]
    evaluated = model.evaluate(x, y, len(own), verbose=0, return_dict=True)
    accuracy = evaluated["accuracy"]
    found = {"accuracy": accuracy, "orthogonality_error": max(errors)}
    if keras.backend.backend() == "jax":
        found |= {"megabytes_kept": megabytes_kept(model), "shapes": shapes(model)}
    if args.memory:
        found["megabytes_of_step"] = megabytes_of_step(model, data, args)
    return found


def variables(model):
    return [*model.variables, *model.optimizer.variables]


def parts(variable):
    """Its parts on the first device of this process, and on the others."""
    return [shard.data for shard in variable.value.addressable_shards]


def megabytes_kept(model):
    return sum(parts(v)[0].nbytes for v in variables(model)) / 1e6


def shapes(model):
    """Of the stacked variables, and of their part on each device of this process."""
    return {
        v.path: [list(v.shape), *(list(part.shape) for part in parts(v))]
        for v in variables(model)
        if len(v.shape) == 3
    }


def megabytes_of_step(model, data, args):
    """On one device, by the plan of XLA: what comes in, and what it needs besides."""
    import jax

    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([v.value for v in group] for group in groups)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    batch = [of_batch(data[name], args.batch_size) for name in ("train_x", "train_y")]
    step = jax.jit(model.train_step, donate_argnums=0, out_shardings=(None, shardings))
    found = step.lower(state, batch).compile().memory_analysis()
    return (found.argument_size_in_bytes + found.temp_size_in_bytes) / 1e6


def of_batch(array, size):
    """A batch without values, divided among devices."""
    import jax

    shape = (size, *array.shape[1:])
    distribution = keras.distribution.distribution()
    layout = distribution and distribution.get_data_layout(shape).backend_layout
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)


if __name__ == "__main__":
    main()
