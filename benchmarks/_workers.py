"""Contenders of a benchmark, each timed in a process of its own.

The script starts itself again with `--worker` for each contender, with the variable
KERAS_BACKEND set, so that one contender's compiled code, threads and memory are not
another's. The worker prints one line of JSON. Nothing else may run at the same time:
PyTorch's threads spin while they wait, and lose a hundredfold where others want the
same cores.
"""

import contextlib
import importlib.util
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

from runner import Choice

LEAST_STEPS = 3


class Training(NamedTuple):
    """What a worker times, once it is built: a function or a compiled Keras model.

    Attributes:
        step: function of no arguments that takes a step and waits until it is over.
        model: one that is timed in its own loop, in place of `step`.
        data: inputs and targets of all steps of the model.
        after: function of no arguments that is called, untimed, after each step.
        report: function of no arguments; what else there is to say, as a dict.
    """

    step: Callable | None = None
    model: object = None
    data: tuple = ()
    after: Callable = lambda: None
    report: Callable = dict


# What a worker imports first: Keras' `fit` would import TensorFlow in the first step,
# and PyTorch's optimizers would import `torch._dynamo` when they are made.
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
KERAS = ("tensorflow", "keras_bsnn") if HAS_TENSORFLOW else ("keras_bsnn",)
JAX, TORCH = ("jax",), ("torch._dynamo",)


class Contender(NamedTuple):
    """What is timed, and where.

    Attributes:
        backend: that Keras would have.
        build: function of a namespace with the depth, the units and all that `compare`
            was given; returns a `Training`. It imports what it needs, and only that.
        imports: modules that are there before memory and time are looked at.
        takes_part: function of the same namespace; whether it is timed.
        environment: pairs of further environment variables of its process.
    """

    backend: str
    build: Callable
    imports: tuple = KERAS
    takes_part: Callable = lambda case: True
    environment: tuple = ()


HUGE_PAGES = (("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),)


def on_huge_pages(contender):
    """The same with memory in pages of 2 MB, if Linux has them when asked.

    XLA asks for the memory of a step anew in each step, and the system clears it page
    by page.
    """
    return contender._replace(environment=HUGE_PAGES)


def options(contenders, seconds):
    """The options of all such scripts; `seconds` for the steps of one worker."""
    return {
        "contenders": Choice(contenders),
        "repeats": 3,
        "timeout": 900.0,
        "seconds": seconds,
    }


def case(text):
    """The size of a network and of its batch, `depth,units,batch size`, as a row."""
    names = ("depth", "units", "batch_size")
    return dict(zip(names, map(int, text.split(",")), strict=True))


def main(experiment, contenders):
    """Runs the experiment; or one contender, in a process that it started."""
    if sys.argv[1:2] == ["--worker"]:
        name, given = json.loads(sys.argv[2])
        print(json.dumps(_timed(contenders[name], Namespace(**given))))
    else:
        experiment.main()


def compare(script, contenders, args, fields, **given):
    """Times those that `args` names in turn, `args.repeats` times; their medians.

    One that failed is not run again.

    Args:
        fields: names of the numbers of which there are to be medians.
        given: entries of the case, next to the options.

    Returns:
        List of a dict for each contender.
    """
    given = {"steps": args.steps, "seconds": args.seconds, **given}
    given["on_gpu"] = has_gpu()
    case = Namespace(**given)
    found = {n: [] for n in args.contenders if contenders[n].takes_part(case)}
    for _ in range(args.repeats):
        for name, runs in found.items():
            if any("failed" in run for run in runs):
                continue
            command = [sys.executable, script, "--worker", json.dumps([name, given])]
            runs.append(_reported(command, contenders[name], args.timeout))
            print(f"{name}: {_brief(runs[-1])}", file=sys.stderr, flush=True)
    times = ("build_seconds", "first_step_seconds", "step_seconds", *fields)
    return [{"contender": n, **medians(runs, times)} for n, runs in found.items()]


def _timed(contender, given):
    """What a worker reports: the times of its steps, its memory and its device."""
    for module in contender.imports:
        importlib.import_module(module)
    memory, started = Memory(), time.perf_counter()
    training = contender.build(given)
    if training.model:
        wait_for_weights(training.model)
    built = time.perf_counter()
    timed = Timed(given.steps, given.seconds, training.after)
    if training.model:
        timed.fit(training.model, *training.data, given.batch_size)
    else:
        timed.run(training.step)
    first, *steady = timed.seconds
    return {
        "build_seconds": built - started,
        "first_step_seconds": first,
        "step_seconds": statistics.median(steady),
        "mean_step_seconds": statistics.mean(steady),
        "slowest_step_seconds": max(steady),
        "steps": len(steady),
        "peak_memory_bytes": memory.peak(),
        "device": device(),
        **training.report(),
    }


def _reported(command, contender, timeout):
    environment = {
        **os.environ,
        **dict(contender.environment),
        "KERAS_BACKEND": contender.backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # A second process must compile as the first did.
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {timeout:g} s"}
    finally:
        _stop(process)
    if process.returncode:
        lines = errors.strip().splitlines() or [""]
        return {"failed": lines[-1] or f"exit status {process.returncode}"}
    return json.loads(output.strip().splitlines()[-1])


def _stop(process):
    """Ends a process that is still there, and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _brief(result):
    if "failed" in result:
        return f"failed, {result['failed']}"
    first, step = result["first_step_seconds"], result["step_seconds"]
    return f"first step {first:.3g} s, then {step:.3g} s"


def medians(runs, fields):
    """The medians over the processes that did not fail, and why one failed, if any."""
    done = [run for run in runs if "failed" not in run]
    failed = [run["failed"] for run in runs if "failed" in run]
    row = {"failed": failed[0]} if failed else {}
    if done:
        row |= {f: statistics.median([run[f] for run in done]) for f in fields}
        steps = [run["step_seconds"] for run in done]
        row["spread_seconds"] = [min(steps), max(steps)]
        row["device"] = done[0]["device"]
    return {**row, "runs": runs}


def cases(records):
    """Dict from each case to a dict of its records by contender, in their order."""
    found = {}
    for row in records:
        key = (row["depth"], row["units"], row["batch_size"])
        found.setdefault(key, {})[row["contender"]] = row
    return found


class Timed:
    """Times steps until there are enough of them.

    Args:
        most: number of steps after the first.
        limit: seconds that they may take together, once there are 3.
        after: function of no arguments that is called, untimed, after each step.
    """

    def __init__(self, most, limit, after):
        self.most, self.limit, self.after = most, limit, after
        self.seconds = []

    def begin(self):
        self._start = time.perf_counter()

    def end(self):
        self.seconds.append(time.perf_counter() - self._start)

    def enough(self):
        steady = self.seconds[1:]
        return len(steady) >= self.most or (
            len(steady) >= LEAST_STEPS and sum(steady) >= self.limit
        )

    def run(self, step):
        while not self.enough():
            self.begin()
            step()
            if cuda := _loaded_cuda():
                cuda.synchronize()
            self.end()
            self.after()

    def fit(self, model, x, y, batch_size):
        """The same with the batches of a Keras model, in its own loop."""
        import keras

        timed = self

        class Timer(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                timed.begin()

            def on_train_batch_end(self, batch, logs=None):
                wait()
                timed.end()
                _ = self.model  # which gives the weights back to the model, on JAX
                timed.after()
                if timed.enough():
                    self.model.stop_training = True

        wait = _waits_for(model)
        model.fit(x, y, batch_size, shuffle=False, verbose=0, callbacks=[Timer()])


def wait_for_weights(model):
    """Waits until a new Keras model has its weights, which JAX computes meanwhile."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready([w.value for w in model.weights])


def _waits_for(model):
    """A function that waits until the model's last step is over.

    JAX returns before it is; Keras then holds the weights in `_jax_state`.
    """
    import keras

    if keras.backend.backend() != "jax":
        return lambda: None
    import jax

    return lambda: jax.block_until_ready(getattr(model, "_jax_state", None))


class Memory:
    """Memory of this process from now on, above what it holds now.

    It is the high-water mark of the resident set (VmHWM of Linux, which unlike
    ru_maxrss does not start with that of the parent process), or on an accelerator
    what JAX says of its peak.
    """

    def __init__(self):
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # sets the mark back to what is held now
        self._base = _status("VmRSS") or _ru_maxrss()

    def peak(self):
        return _device_peak() or (_status("VmHWM") or _ru_maxrss()) - self._base


def _status(field):
    with contextlib.suppress(OSError), open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    return None


def _ru_maxrss():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _device_peak():
    if jax := _loaded_jax():
        statistics_of = jax.local_devices()[0].memory_stats()
        return (statistics_of or {}).get("peak_bytes_in_use")
    cuda = _loaded_cuda()
    return cuda and cuda.max_memory_allocated()


def device():
    """The name of the accelerator that JAX or PyTorch uses, or "cpu"."""
    if jax := _loaded_jax():
        return jax.local_devices()[0].device_kind
    cuda = _loaded_cuda()
    return cuda.get_device_name() if cuda else "cpu"


def torch_device():
    """Where PyTorch computes: on a GPU in TF32, if there is one, as JAX does."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


def has_gpu():
    """Whether the backend of this process has one."""
    import keras

    return any("gpu" in name for name in keras.distribution.list_devices())


def _loaded_jax():
    """JAX, if this worker runs on it."""
    uses_jax = os.environ.get("KERAS_BACKEND") == "jax"
    return sys.modules.get("jax") if uses_jax else None


def _loaded_cuda():
    """PyTorch's part for GPUs, if this worker runs on it and has one."""
    torch = sys.modules.get("torch")
    runs_on_torch = torch and os.environ.get("KERAS_BACKEND") == "torch"
    return torch.cuda if runs_on_torch and torch.cuda.is_available() else None
