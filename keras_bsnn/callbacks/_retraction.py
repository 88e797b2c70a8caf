"""Brings the kernels of a model back to the orthogonal matrices, in float64."""

from typing import NamedTuple

import keras
import numpy as np

from keras_bsnn import _backend, manifolds
from keras_bsnn._parts import nested
from keras_bsnn.ops import orthogonal

ENTRIES_AT_ONCE = 2**22  # so that the copies in float64 stay small
EXACT = 1e-5  # above what `Orthogonal` leaves without a tolerance, in float32
ROUNDING = {"float16": 2**-9, "bfloat16": 2**-6}  # twice what it can be in these


def bring_back(model: keras.layers.Layer, exactly: bool = False) -> dict[str, str]:
    """Retracts each kernel that is further from orthogonal than its constraint allows.

    Args:
        model: A Keras model, in or out of `fit`.
        exactly: Boolean, whether to retract all trainable kernels, too. Defaults to
            `False`.

    Returns:
        A dict of at most two messages to warn with: on kernels that were brought back
        (`"far"`), and on kernels that could not be (`"not finite"`).
    """
    if hasattr(model, "jax_state_sync"):  # within `fit`, the weights are in its loop
        model.jax_state_sync()
    far, not_finite = [], []
    for kernel in _kernels(model):
        matrices = kernel.read()
        limit = _ordinary_error(kernel.variable)
        errors = _errors(matrices, limit)
        is_finite = np.isfinite(errors)
        is_far = is_finite & (errors > limit)
        far.extend(_some(kernel.variable, errors, is_far))
        not_finite.extend(_some(kernel.variable, errors, ~is_finite))
        is_due = is_finite if exactly and kernel.variable.trainable else is_far
        if is_due.any():
            kernel.assign(_nearest(matrices, is_due))
    return _messages(far, not_finite)


def _ordinary_error(variable):
    """The orthogonality error that a kernel may have from its constraint alone."""
    tolerance = getattr(variable.constraint, "tolerance", 0.0)
    # The constraint estimates the error, and twice its tolerance may escape it.
    return max(2 * tolerance, EXACT, ROUNDING.get(variable.dtype, 0))


def _kernels(model):
    """Yields all kernels that have a manifold, including frozen ones."""
    layers = filter(_has_lora, nested(model))
    adapted = {id(v): layer for layer in layers for v in layer.weights}
    for variable, manifold in manifolds.constrained(model.weights):
        yield _Kernel(variable, manifold, adapted.get(id(variable)))


class _Kernel:
    """A variable on a manifold, and the product that LoRA adds to it.

    Args:
        variable: Variable of a layer or a stack.
        manifold: The manifold of the variable.
        layer: The layer with LoRA whose kernel it is, or `None`.
    """

    def __init__(self, variable, manifold, layer):
        self.variable = variable
        self.manifold = manifold
        self.added = None if layer is None else _added_by_lora(layer)

    def read(self):
        """The matrices that the layer multiplies with, `(count, m, n)`."""
        value = _backend.read_whole(self.variable)
        if self.added is not None:
            value = value + self.added
        matrices = self.manifold.matrices(value)
        return matrices.reshape(-1, *matrices.shape[-2:])

    def assign(self, matrices):
        """Sets the variable so that `read` returns them."""
        value = self.manifold.from_matrices(matrices, self.variable.shape)
        if self.added is not None:
            value = value - self.added
        _backend.assign_whole(self.variable, value)


def _has_lora(layer):
    return getattr(layer, "lora_enabled", False) and hasattr(layer, "lora_kernel_a")


def _added_by_lora(layer):
    """The product that LoRA adds, in float64: `layer.kernel` has the compute dtype."""
    a, b = (
        keras.ops.convert_to_numpy(factor).astype("float64")
        for factor in (layer.lora_kernel_a, layer.lora_kernel_b)
    )
    return layer.lora_alpha / layer.lora_rank * (a @ b)


def _errors(matrices, limit):
    """The orthogonality error of each matrix, not finite if an entry is not.

    Errors below the limit may be replaced by other numbers below it.
    """
    return np.concatenate([_error(matrices[some], limit) for some in _slices(matrices)])


def _error(matrices, limit):
    # An estimate takes a few vectors; measuring would take as long as training steps.
    estimate = _wide(orthogonal.estimated_error, matrices)
    if estimate.max() <= limit:
        return estimate
    return _wide(orthogonal.orthogonality_error, matrices)


def _nearest(matrices, is_due):
    """The matrices, of which those due are replaced by the nearest orthogonal ones."""
    result = matrices.copy()
    for some in _slices(matrices):
        due = is_due[some, None, None]
        # The whole slice, so that shapes recur and each is compiled once.
        if due.any():
            near = _wide(_polar, np.where(due, matrices[some], 0))
            result[some] = np.where(due, near, matrices[some])
    return result


def _slices(matrices):
    count = max(1, ENTRIES_AT_ONCE // matrices[0].size)
    return [slice(i, i + count) for i in range(0, len(matrices), count)]


def _wide(function, matrices):
    """`function(matrices)` in float64, from NumPy to NumPy."""
    with _backend.float64():
        tensor = keras.ops.convert_to_tensor(matrices.astype("float64"))
        return keras.ops.convert_to_numpy(function(tensor))


_polar = _backend.traced_once(manifolds.Stiefel().nearest)


class _Some(NamedTuple):
    """Some matrices of one variable: the error of the worst, its name, their number."""

    error: float
    worst: str
    number: int


def _some(variable, errors, chosen):
    """A list of one `_Some`, or of none if no matrix is chosen."""
    if not chosen.any():
        return []
    worst = int(np.argmax(np.where(chosen, errors, -1)))
    of_stack = f"matrix {worst} of " if len(errors) > 1 else ""
    name = f"{of_stack}{variable.path!r}"
    return [_Some(float(errors[worst]), name, int(chosen.sum()))]


def _messages(far, not_finite):
    found = {}
    if far:
        error, name, _ = max(far)
        found["far"] = (
            f"{_count(far)} of the orthogonal kernels had to be brought back: the "
            f"worst, {name}, had an orthogonality error of {error:.3g}. The constraint "
            "does not act on weights that are drawn, set or loaded, on averages (EMA), "
            "or under LoRA."
        )
    if not_finite:
        found["not finite"] = (
            f"{_count(not_finite)} of the orthogonal kernels could not be brought back "
            "and were left as they are, because not all their entries are finite: "
            f"{not_finite[0].worst} is the first."
        )
    return found


def _count(somes):
    return sum(some.number for some in somes)
