"""What a result file must say so that its numbers can be judged and repeated."""

import importlib.metadata
import os
import platform
import sys

import keras

PACKAGES = ("keras_bsnn", "keras", "tensorflow", "jax", "numpy", "tensorflow-datasets")


def environment():
    """The command, versions and machine of this process, as a dict for JSON."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "backend": keras.backend.backend(),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def versions():
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor():
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2] for line in lines if "model name" in line]
        return names[0].strip()
    except (OSError, IndexError):
        return platform.processor()
