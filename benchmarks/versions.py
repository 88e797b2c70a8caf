"""Which uses of the package pass with the versions that are installed here.

    python benchmarks/versions.py --environment newest

records the row of this environment and backend, and ends with an error if a use fails.
`KERAS_BACKEND`, and the Python of another environment, make another row; in an
environment that lacks the package, set `PYTHONPATH`.
"""

import textwrap

import keras
from _origin import PACKAGES
from _uses import USES
from runner import Choice, Experiment, columns

ENVIRONMENTS = {
    "oldest": "oldest",
    "notebook": "of a notebook service",
    "newest": "newest",
}


def run(args, environment, backend, **_):
    """Records the row, also if a use fails."""
    errors = {name: error_of(USES[name]) for name in args.uses}
    yield {"errors": errors}
    if failing := [name for name, error in errors.items() if error]:
        raise SystemExit(f"{len(failing)} of {len(errors)} fail: {failing}")


def error_of(use):
    """What fails, in some words, or `None`."""
    try:
        use()
    except Exception as error:  # whatever a version may raise
        words = f"{type(error).__name__}: {error}"
        return textwrap.shorten(words, 120, placeholder=" ...")
    return None


def name_of(row):
    """The backend with its version, and whether it has TensorFlow beside it."""
    backend, versions = row["backend"], row["versions"]
    alone = "" if "tensorflow" in versions else ", no TensorFlow"
    return f"{PACKAGES[backend]} {versions[backend]}{alone}"


def passing(row):
    passed = [error is None for error in row["errors"].values()]
    return f"{sum(passed)} of {len(passed)}"


def failing(row):
    return "; ".join(name for name, error in row["errors"].items() if error)


EXPERIMENT = Experiment(
    __file__,
    run,
    columns(
        {
            "versions": lambda row: ENVIRONMENTS[row["environment"]],
            "backend": name_of,
            **{"uses that pass": passing, "what fails": failing},
            **{"Python": "{versions[python]}", "Keras": "{versions[keras]}"},
            **{"NumPy": "{versions[numpy]}", "SciPy": "{versions[scipy]}"},
        },
        left=8,
    ),
    rows=lambda args: [
        {"environment": args.environment, "backend": keras.backend.backend()}
    ],
    arrange=lambda records: sorted(
        records,
        key=lambda row: (
            [*ENVIRONMENTS].index(row["environment"]),
            [*PACKAGES].index(row["backend"]),
        ),
    ),
    options={
        "environment": Choice(ENVIRONMENTS, "newest"),
        "uses": Choice(USES),
    },
    record="versions",
    is_done=lambda args, record: False,  # it costs a minute
)

if __name__ == "__main__":
    EXPERIMENT.main()
