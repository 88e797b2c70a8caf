"""Contenders of a benchmark, each timed in a process of its own.

The script starts itself again with `--worker NAME` for each contender, with the
variable KERAS_BACKEND set, so that one contender's compiled code, threads and memory
are not another's. The worker prints one line of JSON. Nothing else may run beside it:
PyTorch's threads spin while they wait, and lose a hundredfold where others want the
same cores.
"""

import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

LEAST_STEPS = 3


class Contender(NamedTuple):
    """What is timed: a function of the worker's arguments, and where it takes part."""

    backend: str
    work: Callable
    takes_part: Callable = lambda case: True


class Case(NamedTuple):
    """The size of a network and of its batch."""

    depth: int
    units: int
    batch_size: int

    def __str__(self):
        return f"{self.depth} x {self.units}, batch {self.batch_size}"

    def arguments(self):
        """As a worker takes them."""
        names = ("--depth", "--units", "--batch-size")
        return [str(x) for pair in zip(names, self, strict=True) for x in pair]


def add_arguments(parser, contenders, seconds):
    """The arguments of all such scripts; `seconds` for the steps of one worker."""
    add = parser.add_argument
    add("--contenders", nargs="+", choices=contenders, default=[*contenders])
    add("--repeats", type=int, default=3, help="processes for each contender")
    add("--timeout", type=float, default=900.0, help="seconds for one process")
    add("--seconds", type=float, default=seconds, help="limit of its steady steps")
    add("--worker", choices=contenders, help="(internal) time this contender here")


def interleaved(script, jobs, repeats, timeout):
    """Runs all jobs in turn, `repeats` times; one that failed is not run again.

    Args:
        script: path of the script that started.
        jobs: dict from the name of a contender to its arguments and its backend.
        repeats: number of turns.
        timeout: seconds that one process may take.

    Returns:
        Dict from the name to what its processes reported, a list of dicts.
    """
    found = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, (arguments, backend) in jobs.items():
            if any("failed" in result for result in found[name]):
                continue
            command = [sys.executable, script, "--worker", name, *arguments]
            result = _reported(command, backend, timeout)
            found[name].append(result)
            print(f"{name}: {_brief(result)}", file=sys.stderr, flush=True)
    return found


def _reported(command, backend, timeout):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
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


def medians(results, fields):
    """The medians over the processes that did not fail, and why one failed, if any."""
    done = [result for result in results if "failed" not in result]
    failed = [result["failed"] for result in results if "failed" in result]
    row = {"failed": failed[0]} if failed else {}
    if done:
        row |= {f: statistics.median([result[f] for result in done]) for f in fields}
        steps = [result["step_seconds"] for result in done]
        row["spread_seconds"] = [min(steps), max(steps)]
        row["device"] = done[0]["device"]
    return {**row, "runs": results}


class Timed:
    """Times steps, and tells when there are enough of them.

    Args:
        most: number of steps after the first.
        seconds: limit of the time that they take together, once there are 3.
    """

    def __init__(self, most, seconds):
        self.most = most
        self.limit = seconds
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

    def run(self, step, after=lambda: None):
        """Calls `step` until it is enough, and `after` untimed."""
        while not self.enough():
            self.begin()
            step()
            self.end()
            after()

    def fit(self, model, x, y, batch_size, after=None):
        """The same with the batches of a Keras model, in its own loop."""
        import keras

        timed = self

        class Timer(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                timed.begin()

            def on_train_batch_end(self, batch, logs=None):
                wait()
                timed.end()
                # `self.model` gives the weights back to the model, on JAX.
                if after:
                    after(self.model)
                if timed.enough():
                    self.model.stop_training = True

        wait = _waits_for(model)
        model.fit(x, y, batch_size, shuffle=False, verbose=0, callbacks=[Timer()])

    def result(self, started, built):
        """What a worker reports of its times."""
        first, *steady = self.seconds
        return {
            "build_seconds": built - started,
            "first_step_seconds": first,
            "step_seconds": statistics.median(steady),
            "steps": len(steady),
        }


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
    jax = _loaded_jax()
    statistics_of = jax and jax.local_devices()[0].memory_stats()
    return (statistics_of or {}).get("peak_bytes_in_use")


def device():
    """The name of the accelerator that JAX uses, or "cpu"."""
    jax = _loaded_jax()
    return jax.local_devices()[0].device_kind if jax else "cpu"


def _loaded_jax():
    """JAX, if this worker runs on it."""
    uses_jax = os.environ.get("KERAS_BACKEND") == "jax"
    return sys.modules.get("jax") if uses_jax else None


def found(args, rows):
    """What a record says: the settings, and the rows."""
    hidden = ("worker", "constants", "out", "records", "readme")
    settings = {k: v for k, v in vars(args).items() if k not in hidden}
    return {"settings": settings, "result": rows}
