"""What must be installed: a Keras that is new enough, its backend, and the extras."""

import contextlib
from collections.abc import Iterator

OLDEST_KERAS = (3, 10)

try:
    import keras
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("tensorflow", "jax", "torch"):
        raise
    raise ModuleNotFoundError(
        f"Keras is to run on {missing}, which is not installed: pip install "
        f"'keras_bsnn[{missing}]' installs it. Or set the environment variable "
        "KERAS_BACKEND to another of 'tensorflow', 'jax' and 'torch'.",
        name=missing,
    ) from error

if tuple(map(int, keras.__version__.split(".")[:2])) < OLDEST_KERAS:
    raise ImportError(
        f"keras_bsnn needs Keras {'.'.join(map(str, OLDEST_KERAS))} or newer, and this "
        f"is Keras {keras.__version__}: pip install --upgrade keras"
    )


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """A context for imports of what an extra of the package installs.

    Raises:
        ModuleNotFoundError: A package is not installed; the message says which extra
            brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'keras_bsnn[{name}]' "
            "installs it.",
            name=error.name,
        ) from error
