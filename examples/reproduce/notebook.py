"""Executes the notebook of the examples, and writes it with what it shows.

    python examples/reproduce/notebook.py

Takes four minutes on 2 cores. What is logged is left out.
"""

import argparse
import copy
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "depth_without_limits.ipynb"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=NOTEBOOK)
    out = parser.parse_args().out
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    metadata = copy.deepcopy(notebook.metadata)
    NotebookClient(notebook, kernel_name="python3", record_timing=False).execute()
    notebook.metadata = metadata  # without the version of Python
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    nbformat.write(notebook, out)
