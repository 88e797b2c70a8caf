"""How many samples several processes and devices train on in a second, beside one.

    python benchmarks/throughput.py --page docs/results/devices.md

Each case is a run of `examples/distributed.py`, all with the same data and batches, so
that each loss curve must be that of one process. Where a case is "on a core each", one
process has one core too.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from runner import Experiment, columns

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import distributed

LABELS = {
    "data": "JAX, data divided",
    "depth": "JAX, depth divided",
    "mirrored": "TensorFlow, mirrored",
}


class Case(NamedTuple):
    strategy: str
    processes: int
    devices: int  # of each process
    batch_size: int = 120
    checkpoint_every: int | None = None
    pin: bool = False

    @property
    def label(self):
        more = ", on a core each" * self.pin
        if self.batch_size != Case._field_defaults["batch_size"]:
            more += f", batches of {self.batch_size}"
        if self.checkpoint_every:
            more += f", {self.checkpoint_every} layers at once"
        return LABELS[self.strategy] + more


CASES = [
    *(Case("data", n, 1) for n in (1, 2, 4)),
    *(Case("data", n, 1, pin=True) for n in (1, 2)),
    *(Case("data", n, 1, 720, pin=True) for n in (1, 2)),
    *(Case("depth", 1, n) for n in (1, 2, 4)),
    Case("depth", 2, 2),
    *(Case("depth", n, n, checkpoint_every=25) for n in (1, 2)),
    *(Case("mirrored", 1, n) for n in (1, 2)),
]


def run(args):
    """A record for each case, next to what one process finds."""
    cases = [c for c in CASES if c.processes * c.devices <= args.most]
    cases = [c for c in cases if c.strategy in args.strategies]
    with tempfile.TemporaryDirectory() as folder:
        found = {case: trained(case, Path(folder), args) for case in cases}
    return [
        {**case._asdict(), **compared(f, found[case._replace(processes=1, devices=1)])}
        for case, f in found.items()
    ]


def trained(case, folder, args):
    """What the example finds."""
    out = folder / "_".join(map(str, case))
    options = {name: getattr(args, name) for name in ("depth", "units", "epochs")}
    options |= {"out": out, "data": folder / "digits.npz", **case._asdict()}
    arguments = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if name != "pin" and value is not None
    ]
    arguments += ["--no-alone", *["--pin"] * case.pin]
    arguments += ["--memory"] * (case.strategy == "depth")
    distributed.main(arguments)
    return json.loads((out / "result.json").read_text())["result"]["together"]


def compared(found, one):
    difference = np.divide(found["losses"], one["losses"]) - 1
    same = ("losses", "accuracy", "orthogonality_error")
    return {
        **{key: found[key] for key in same},
        "largest_difference": float(np.max(np.abs(difference))),
        "samples_per_second": round(found["samples_per_second"]),
        "of_one": found["samples_per_second"] / one["samples_per_second"],
        "megabytes_kept": found.get("megabytes_kept"),
        "megabytes_of_step": found.get("megabytes_of_step"),
    }


def case_of(row):
    return Case(*(row[name] for name in Case._fields))


def parts(row):
    return row["processes"] * row["devices"]


def megabytes(value):
    return f"{value:.2g}" if value else ""


TABLE = {
    "": lambda row: case_of(row).label,
    "processes x devices": "{processes} x {devices}",
    "loss, largest difference": lambda row: (
        f"{row['largest_difference']:.0e}" if parts(row) > 1 else ""
    ),
    "samples a second": "{samples_per_second:,}",
    "of one": "{of_one:.2f}",
    "efficiency": lambda row: f"{row['of_one'] / parts(row):.0%}",
    "MB kept": lambda row: megabytes(row["megabytes_kept"]),
    "MB of a step": lambda row: megabytes(row["megabytes_of_step"]),
}

if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        columns(TABLE),
        options={
            **{"depth": 200, "units": 64, "epochs": 8, "strategies": [*LABELS]},
            "most": 4,  # devices, of all processes together
        },
    ).main()
