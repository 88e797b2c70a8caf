"""The cost of training models of keras-hub, plain and with their layers as loops.

    KERAS_BACKEND=jax python benchmarks/stacking.py --page docs/results/stacking.md
    python benchmarks/stacking.py --show --page docs/results/stacking.md

Each row is a run of `examples/stack_a_model.py`, in a process of its own that may take
`--limit` seconds; the forms of a model run in turn. A first step has in it what it
takes to build the model and to compile its step with XLA. Memory is the most that the
process held, less what it held when all was imported. The time to compile varies by a
tenth between runs: `--rounds` repeats them, and a line has their medians.
"""

import statistics
import sys
from pathlib import Path

from runner import BACKENDS, Choice, Experiment, markdown, tensorflow_first

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import stack_a_model

SETTINGS = ("width", "heads", "length", "vocabulary", "batch", "steps")


def run(args, model, layers, form, **_):
    given = {name: getattr(args, name) for name in SETTINGS}
    case = {**given, "model": model, "layers": layers}
    found = stack_a_model.in_a_process(case, form, args.limit)
    print(f"{form}: {stack_a_model.in_words(found)}", file=sys.stderr, flush=True)
    return {**given, **found, "limit": args.limit}


def is_done(args, record):
    """One that took too long would again, unless it may take longer."""
    is_late = record.get("failed", "").startswith("more than")
    return "failed" not in record or (is_late and record["limit"] >= args.limit)


def table(records):
    """A line for each model, backend and number of layers."""
    cases = {}
    for row in tensorflow_first(records):
        case = cases.setdefault((row["model"], row["backend"]), {})
        rounds = case.setdefault(row["layers"], {}).setdefault(row["form"], [])
        rounds.append(row)
    heads = [
        "",
        "backend",
        "layers",
        "first step",
        "stacked",
        "plain to stacked",
        "a step",
        "stacked",
        "stacked to plain",
        "with checkpoints",
        "memory, GB",
        "stacked",
        "with checkpoints",
    ]
    lines = [
        [model, BACKENDS[backend], f"{layers:,}", *_line(forms)]
        for (model, backend), case in sorted(cases.items(), key=lambda item: item[0][0])
        for layers, forms in sorted(case.items())
    ]
    return markdown(heads, lines, left=2)


def median(rows):
    """A row with the medians of numbers over the rounds that did not fail."""
    rows = [row for row in rows if "failed" not in row] or rows
    numbers = [k for k in rows[0] if k.endswith(("_seconds", "_bytes"))]
    return {**rows[0], **{k: statistics.median(r[k] for r in rows) for k in numbers}}


def _line(forms):
    rows = {form: median(rounds) for form, rounds in forms.items()}
    plain, stacked, checkpoints = (rows.get(form, {}) for form in stack_a_model.FORMS)
    steps = [row.get("step_seconds") for row in (plain, stacked, checkpoints)]
    return [
        _seconds(plain),
        _seconds(stacked),
        _at_least(plain, stacked.get("first_step_seconds")),
        *(_milliseconds(seconds) for seconds in steps[:2]),
        _ratio(steps[1], steps[0]),
        _milliseconds(steps[2]),
        *map(_gigabytes, (plain, stacked, checkpoints)),
    ]


def _milliseconds(seconds):
    return f"{1000 * seconds:,.0f} ms" if seconds else ""


def _gigabytes(row):
    """The most that the process held beyond what it held at first."""
    if "peak_memory_bytes" not in row:
        return ""
    return f"{(row['peak_memory_bytes'] - row['memory_before_bytes']) / 1e9:.2f}"


def _seconds(row):
    if "failed" in row:
        late = row["failed"].startswith("more than")
        return f"> {row['limit']:,.0f} s" if late else "failed"
    return f"{row['first_step_seconds']:.1f} s" if row else ""


def _at_least(plain, seconds):
    """How much longer a plain model took; more than that, if it was stopped."""
    if seconds and plain.get("failed", "").startswith("more than"):
        return f"> {plain['limit'] / seconds:.2f}"
    return _ratio(plain.get("first_step_seconds"), seconds)


def _ratio(a, b):
    return f"{a / b:.2f}" if a and b else ""


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows={
            "model": "models",
            "layers": "layers",
            "form": "forms",
            "round": "rounds",
        },
        options={
            "models": ["gpt2", "bert", "llama"],
            "layers": [12, 48],
            "forms": Choice(stack_a_model.FORMS),
            "rounds": [1],
            "width": 64,
            "heads": 4,
            "length": 32,
            "vocabulary": 1000,
            "batch": 2,
            "steps": 20,
            "limit": 1800.0,
        },
        record="stacking/{backend}.json",
        is_done=is_done,
    ).main()
