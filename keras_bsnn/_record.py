"""Facts of a run that a result file needs so that others can judge and repeat it."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import keras

PACKAGES = (
    "keras_bsnn",
    "keras",
    "keras-hub",
    "tensorflow",
    "jax",
    "torch",
    "numpy",
    "scipy",
    "tensorflow-datasets",
)


def environment() -> dict[str, Any]:
    """The command, versions and machine of this process, as a dict for JSON."""
    return {
        "command": " ".join([*_program(), *sys.argv[1:]]),
        "backend": keras.backend.backend(),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def versions() -> dict[str, str]:
    """The versions of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _program() -> list[str]:
    """As one calls it: a script by its path, `keras-bsnn` by its name."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return ["python", "-m", path.parent.name]
    return ["python", sys.argv[0]] if path.suffix == ".py" else [path.name]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2] for line in lines if "model name" in line]
        return names[0].strip()
    except (OSError, IndexError):
        return platform.processor()
