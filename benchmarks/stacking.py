"""The cost of training models of keras-hub, plain and with their layers as loops.

    KERAS_BACKEND=jax python benchmarks/stacking.py --page docs/results/stacking.md
    python benchmarks/stacking.py --show --page docs/results/stacking.md

Each row is a run of `examples/stack_a_model.py`, in a process of its own that may take
`--limit` seconds; the forms of a model run in turn. A first step has in it what it
takes to build the model and to compile its step with XLA. Memory is the most that the
process held, less what it held when all was imported.
"""

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
    """A line for each model and backend, with the least and the most layers."""
    depths = sorted({row["layers"] for row in records})
    few, many = depths[0], depths[-1]
    cases = {}
    for row in tensorflow_first(records):
        case = cases.setdefault((row["model"], row["backend"]), {})
        case[row["layers"], row["form"]] = row
    heads = [
        "",
        "backend",
        f"first step, {few} layers",
        "stacked",
        f"{many} layers",
        "stacked",
        f"stacked, {many} to {few}",
        "plain to stacked",
        "step",
        "memory",
        "with checkpoints",
    ]
    lines = []
    for (model, backend), case in sorted(cases.items(), key=lambda item: item[0][0]):
        line = _line(case, few, many)
        lines.append([model, BACKENDS[backend], *line])
    return markdown(heads, lines, left=2)


def _line(case, few, many):
    plain, stacked, checkpoints = (
        case.get((many, form), {}) for form in stack_a_model.FORMS
    )
    loops_few = case.get((few, "stacked"), {})
    first = "first_step_seconds"
    return [
        _seconds(case.get((few, "plain"), {})),
        _seconds(loops_few),
        _seconds(plain),
        _seconds(stacked),
        _ratio(stacked.get(first), loops_few.get(first)),
        _at_least(plain, stacked.get(first)),
        _ratio(stacked.get("step_seconds"), plain.get("step_seconds")),
        _ratio(_memory(stacked), _memory(plain)),
        _ratio(_memory(checkpoints), _memory(plain)),
    ]


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


def _memory(row):
    if "peak_memory_bytes" not in row:
        return None
    return row["peak_memory_bytes"] - row["memory_before_bytes"]


def _ratio(a, b):
    return f"{a / b:.2f}" if a and b else ""


if __name__ == "__main__":
    Experiment(
        __file__,
        run,
        table,
        rows={"model": "models", "layers": "layers", "form": "forms"},
        options={
            "models": ["gpt2", "bert", "llama"],
            "layers": [12, 48],
            "forms": Choice(stack_a_model.FORMS),
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
