"""Trains a backbone of keras-hub as it is, and with its layers as loops: time, memory.

    KERAS_BACKEND=jax python examples/stack_a_model.py --model gpt2 --layers 48

Each form has a process of its own. `plain` is the backbone, `stacked` what
`keras_bsnn.stacking.stack_layers` makes of it, and `checkpoints` the same with
`checkpoint_every` near the square root of the depth. With `--model block` it is as many
`TransformerDecoder` in a row, of which `DepthStack(block, layers)` is made directly.

What is told of each: seconds to build the model, to compile its training step with XLA,
until the first step is done (both of these in it), and of a step after that; the most
memory that the process held, and what it held before; and for loops, how far the
outputs are from those of the layers one by one, with the weights after training.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORMS = ("plain", "stacked", "checkpoints")
WARM_UP = 2  # steps after the first that are not counted


def main(given=None):
    args = arguments(given)
    forms = FORMS[:2] if args.form == "both" else [args.form]
    if len(forms) == 1:
        found = {args.form: measure(args)}
    else:
        found = {form: in_a_process(settings(args), form) for form in forms}
    for form, result in found.items():
        print(f"{form}: {in_words(result)}")
    if args.out:
        write(found, args)


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model", default="gpt2", help="as in examples/_backbones.py, or `block`")
    add("--layers", type=int, default=48)
    add("--width", type=int, default=64)
    add("--heads", type=int, default=4)
    add("--length", type=int, default=32, help="tokens")
    add("--vocabulary", type=int, default=1000)
    add("--batch", type=int, default=2, help="sequences")
    add("--steps", type=int, default=20)
    add("--learning-rate", type=float, default=1e-3, help="of Adam")
    add("--form", choices=(*FORMS, "both"), default="both")
    add("--out", type=Path, help="a file for the record")
    return parser.parse_args(given)


def settings(args):
    """What a model and its training are, without the form."""
    return {k: v for k, v in vars(args).items() if k not in ("form", "out")}


def in_a_process(settings, form, limit=None):
    """Measures a form in a process of its own.

    Args:
        settings: dict of options.
        limit: seconds that it may take. Defaults to `None`, for as long as it takes.

    Returns:
        What `measure` returns; or a dict with `"failed"`, and why.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {**settings, "form": form, "out": Path(folder, "result.json")}
        given = [f"--{k.replace('_', '-')}={value}" for k, value in options.items()]
        command = [sys.executable, __file__, *given]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"more than {limit:g} s"}
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [""]
            return {"failed": lines[-1] or f"exit status {done.returncode}"}
        return json.loads(options["out"].read_text())["result"][form]


def measure(args):
    """Builds a model and trains it on one batch, in this process."""
    import keras
    import keras_hub  # noqa: F401  what is imported now takes no time later

    import keras_bsnn.stacking  # noqa: F401

    models = Block(args) if args.model == "block" else Backbone(args)
    keras.ops.convert_to_numpy(keras.ops.ones(1) + 1)  # the backend starts
    memory, start = resident("VmRSS"), time.perf_counter()
    model = models.made(args.form)
    wait(model)
    built = time.perf_counter() - start
    model.compile(keras.optimizers.Adam(args.learning_rate), "mse", jit_compile=True)
    batch = models.batch(model)
    seconds, losses = [], []
    for _ in range(1 + WARM_UP + args.steps):
        model.reset_metrics()  # else the loss is a mean over all steps
        start = time.perf_counter()
        told = model.train_on_batch(*batch, return_dict=True)
        losses.append(float(told["loss"]))
        wait(model)
        seconds.append(time.perf_counter() - start)
    step = statistics.median(seconds[1 + WARM_UP :])
    found = {
        "parameters": model.count_params(),
        "weights": len(model.weights),
        "build_seconds": built,
        "compile_seconds": seconds[0] - step,
        "first_step_seconds": built + seconds[0],
        "step_seconds": step,
        "slowest_step_seconds": max(seconds[1 + WARM_UP :]),
        "memory_before_bytes": memory,
        "peak_memory_bytes": resident("VmHWM"),
        "losses": losses,
    }
    if args.form != "plain":
        found |= models.compared(model, batch[0])
    return found


class Backbone:
    """A backbone of keras-hub in its forms."""

    def __init__(self, args):
        import _backbones

        names = ("layers", "width", "heads", "length", "vocabulary")
        self.args, self._backbones = args, _backbones
        self.size = _backbones.Size(*(getattr(args, name) for name in names))
        if args.model not in _backbones.BACKBONES:
            known = ", ".join((*_backbones.BACKBONES, "block"))
            raise SystemExit(f"--model must be one of {known}, not {args.model}.")

    def made(self, form):
        import keras

        from keras_bsnn.stacking import stack_layers

        keras.utils.set_random_seed(0)
        model = self._backbones.backbone(self.args.model, self.size)
        if form == "plain":
            return model
        model = stack_layers(model)
        for layer in model.layers:
            if form == "checkpoints" and hasattr(layer, "checkpoint_every"):
                layer.checkpoint_every = near_root(layer.depth)
        return model

    def batch(self, model):
        x = self._backbones.data(model, self.size, self.args.batch)
        return x, targets(model, self.args)

    def compared(self, model, x):
        from keras_bsnn.stacking import unstack

        found = {"report": model.report.split("\n")}
        return found | difference(model(x), unstack(model)(x))


class Block:
    """Layers of a width, one after the other, as `DepthStack` and without."""

    def __init__(self, args):
        self.args = args

    def made(self, form):
        import keras

        from keras_bsnn.layers import DepthStack

        keras.utils.set_random_seed(0)
        depth = self.args.layers
        every = near_root(depth) if form == "checkpoints" else None
        if form == "plain":
            layers = [self._block() for _ in range(depth)]
        else:
            layers = [DepthStack(self._block(), depth, checkpoint_every=every)]
        inputs = x = keras.Input((self.args.length, self.args.width))
        for layer in layers:
            x = layer(x)
        return keras.Model(inputs, x)

    def _block(self):
        import keras_hub

        inner, heads = 4 * self.args.width, self.args.heads
        layer = keras_hub.layers.TransformerDecoder
        return layer(inner, heads, activation="gelu", normalize_first=True)

    def batch(self, model):
        import numpy as np

        shape = (self.args.batch, self.args.length, self.args.width)
        x = np.random.default_rng(0).normal(size=shape).astype("float32")
        return x, targets(model, self.args)

    def compared(self, model, x):
        stack, y = model.layers[-1], x
        for layer in range(stack.depth):
            y = stack.layer_at(layer)(y)
        return difference(model(x), y)


def targets(model, args):
    """Random ones for the outputs of a model."""
    import keras
    import numpy as np

    rng = np.random.default_rng(1)

    def made(y):
        free = iter((args.batch, args.length))
        shape = [next(free) if n is None else n for n in y.shape]
        return rng.normal(size=shape).astype("float32")

    return keras.tree.map_structure(made, model.output)


def difference(ours, theirs):
    """The largest between two structures of outputs, and the largest output."""
    import keras
    import numpy as np

    pairs = [
        [*map(keras.ops.convert_to_numpy, pair)]
        for pair in zip(
            keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True
        )
    ]
    return {
        "largest_difference": float(max(np.abs(a - b).max() for a, b in pairs)),
        "largest_output": float(max(np.abs(b).max() for _, b in pairs)),
    }


def near_root(depth):
    """The divisor of a depth that is nearest to its square root."""
    divisors = (k for k in range(1, depth + 1) if depth % k == 0)
    return min(divisors, key=lambda k: abs(k - depth**0.5))


def wait(model):
    """Until the model has its weights, which JAX computes meanwhile."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        state = getattr(model, "_jax_state", None)
        jax.block_until_ready(state or [w.value for w in model.weights])


def resident(field):
    """Bytes of memory: `VmRSS` those that are held, `VmHWM` the most so far."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not on Linux, where it may also be that of the parent
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in lines if line.startswith(field))
    return 1024 * int(line.split()[1])


def in_words(found):
    if "failed" in found:
        return f"failed, {found['failed']}"
    text = (
        "first step {first_step_seconds:.1f} s, of which {build_seconds:.1f} s build "
        "and {compile_seconds:.1f} s compile; then {step_seconds:.4f} s a step; "
        "{peak_memory_bytes:.2e} bytes"
    ).format(**found)
    if "largest_difference" in found:
        text += "; {largest_difference:.0e} from the layers one by one".format(**found)
    return text


def write(found, args):
    from keras_bsnn._record import environment

    record = {**environment(), "settings": settings(args), "result": found}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
