"""How many samples several processes and devices train on in a second, beside one.

    python benchmarks/throughput.py --out benchmarks/results/throughput.json
    python benchmarks/throughput.py --from benchmarks/results/throughput.json \
        --readme README.md

Each case is a run of `examples/distributed.py`, all with the same data and batches, so
that each loss curve must be that of one process. Where a case is "on a core each", one
process has one core too.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import _table
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import distributed


class Case(NamedTuple):
    strategy: str
    processes: int
    devices: int  # of each process
    batch_size: int = 120
    checkpoint_every: int | None = None
    pin: bool = False

    @property
    def one(self):
        """What it is compared with."""
        return self._replace(processes=1, devices=1)

    @property
    def label(self):
        strategy = {
            "data": "JAX, data divided",
            "depth": "JAX, depth divided",
            "mirrored": "TensorFlow, mirrored",
        }
        more = ", on a core each" * self.pin
        if self.batch_size != Case._field_defaults["batch_size"]:
            more += f", batches of {self.batch_size}"
        if self.checkpoint_every:
            more += f", {self.checkpoint_every} layers at once"
        return strategy[self.strategy] + more


CASES = [
    *(Case("data", n, 1) for n in (1, 2, 4)),
    *(Case("data", n, 1, pin=True) for n in (1, 2)),
    *(Case("data", n, 1, 720, pin=True) for n in (1, 2)),
    *(Case("depth", 1, n) for n in (1, 2, 4)),
    Case("depth", 2, 2),
    *(Case("depth", n, n, checkpoint_every=25) for n in (1, 2)),
    *(Case("mirrored", 1, n) for n in (1, 2)),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--depth", type=int, default=200)
    add("--units", type=int, default=64)
    add("--epochs", type=int, default=8)
    add("--strategies", nargs="+", default=["data", "depth", "mirrored"])
    add("--most", type=int, default=4, help="devices, of all processes together")
    _table.add_arguments(parser)
    _table.present("throughput.py", measure, table, parser.parse_args())


def measure(args):
    """A row for each case."""
    cases = [c for c in CASES if c.processes * c.devices <= args.most]
    cases = [c for c in cases if c.strategy in args.strategies]
    with tempfile.TemporaryDirectory() as folder:
        found = {case: run(case, Path(folder), args) for case in cases}
    rows = [row(case, found[case], found[case.one]) for case in cases]
    return {"result": rows}


def run(case, folder, args):
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


def row(case, found, one):
    difference = np.divide(found["losses"], one["losses"]) - 1
    return {
        **case._asdict(),
        "losses": found["losses"],
        "largest_difference": float(np.max(np.abs(difference))),
        "accuracy": found["accuracy"],
        "orthogonality_error": found["orthogonality_error"],
        "samples_per_second": round(found["samples_per_second"]),
        "of_one": found["samples_per_second"] / one["samples_per_second"],
        "megabytes_kept": found.get("megabytes_kept"),
        "megabytes_of_step": found.get("megabytes_of_step"),
    }


def table(records):
    heads = ["", "processes x devices", "loss, largest difference"]
    heads += ["samples a second", "of one", "efficiency", "MB kept", "MB of a step"]
    lines = []
    for found in _table.rows_of(records):
        case = Case(*(found[name] for name in Case._fields))
        parts = case.processes * case.devices
        lines.append(
            [
                case.label,
                f"{case.processes} x {case.devices}",
                f"{found['largest_difference']:.0e}" if parts > 1 else "",
                f"{found['samples_per_second']:,}",
                f"{found['of_one']:.2f}",
                f"{found['of_one'] / parts:.0%}",
                megabytes(found["megabytes_kept"]),
                megabytes(found["megabytes_of_step"]),
            ]
        )
    return _table.markdown(heads, lines)


def megabytes(value):
    return f"{value:.2g}" if value else ""


if __name__ == "__main__":
    main()
