"""The runner that these scripts share with those of `benchmarks/`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from runner import Choice, Experiment, columns, markdown, significant

__all__ = ["Choice", "Experiment", "columns", "markdown", "significant"]
