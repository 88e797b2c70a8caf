"""Where records come from: machines, versions and seeds, as a line for a page."""

import json
import re

PACKAGES = {
    **{"keras": "Keras", "tensorflow": "TensorFlow"},
    **{"jax": "JAX", "torch": "PyTorch"},
}


def files(*places):
    """What the JSON files hold that are there, or in the folders."""
    for place in places:
        for path in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            if path.exists():
                yield json.loads(path.read_text())


def origin(*places):
    """For instance `*Recorded on: AMD EPYC, 2 cores. Keras 3.15.1. Seeds 0, 1.*`."""
    machines, versions, seeds = set(), set(), set()
    for file in files(*places):
        machine, installed = file["machine"], file["versions"]
        machines.add(f"{machine['processor']}, {machine['cores']} cores")
        versions |= {(p, installed[p]) for p in PACKAGES if p in installed}
        seeds |= _seeds(file)
    order = [*PACKAGES]
    ordered = sorted(versions, key=lambda v: (order.index(v[0]), _numbers(v[1])))
    facts = ["; ".join(sorted(machines))]
    facts.append(", ".join(f"{PACKAGES[name]} {version}" for name, version in ordered))
    if seeds:
        facts.append(f"Seed{'s' * (len(seeds) > 1)} {_enumerated(sorted(seeds))}")
    return f"*Recorded on: {'. '.join(facts)}.*"


def _numbers(version):
    return [int(number) for number in re.findall(r"\d+", version)]


def _seeds(file):
    """Those of a file's records, or else of its settings."""
    rows = file["result"] if isinstance(file["result"], list) else [file["result"]]
    settings = file.get("settings", {})
    given = settings.get("seeds", [settings[k] for k in settings if k == "seed"])
    return {row["seed"] for row in rows if "seed" in row} or set(given)


def _enumerated(numbers):
    """For instance `0, 1, 2`, or `0 to 19`."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 3 and numbers == [*range(first, last + 1)]:
        return f"{first} to {last}"
    return ", ".join(map(str, numbers))
