"""Constraints that keep kernels orthogonal."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_bsnn import _backend, manifolds
from keras_bsnn.ops import _check, orthogonal

__all__ = ["Orthogonal"]

ITERATIVE = {"newton_schulz": orthogonal.newton_schulz, "cayley": orthogonal.cayley}
RETRACTIONS = {**ITERATIVE, "qr": orthogonal.qr}
KIND = f"one of {sorted(RETRACTIONS)} or a callable"


@functools.cache
def _retraction(manifold, retraction, steps, tolerance):
    """The guarded retraction, one function for all layers that use the same."""
    function = RETRACTIONS.get(retraction, retraction)
    if retraction in ITERATIVE:
        function = functools.partial(function, steps=steps)
    return _backend.traced_once(lambda w: manifold.retract(w, function, tolerance))


@keras.saving.register_keras_serializable(package="keras_bsnn")
class Orthogonal(keras.constraints.Constraint):
    """Brings a kernel back to orthogonal after each update of the optimizer.

    The optimizer's step leaves the orthogonal matrices by a little; a retraction
    returns to them. Where the step was so large that the retraction does not arrive
    (an error above 5e-6), further steps do, whatever the size.

    Args:
        retraction: `"newton_schulz"` (matrix products only, the fastest), `"cayley"`,
            `"qr"`, or a callable that maps a tensor `(..., m, n)` in float32 or wider
            to one of the same shape.
        steps: number of steps of the first two, an integer from 1 to 100.
        tolerance: an orthogonality error that may remain, less than 1. With 0, every
            kernel is retracted at each update. Otherwise only those are whose error,
            as estimated from a few random vectors, is above it: that costs far less
            where the updates are small, or tangent to the orthogonal matrices
            (`OrthogonalDense(tangent_gradient=True)`).
            `keras_bsnn.callbacks.Retract` removes what remains.
        manifold: a `keras_bsnn.manifolds.Stiefel`, which says what axes of the kernel
            are rows and columns. Defaults to `Stiefel()`: the last two.

    Call it with a kernel of shape `(..., m, n)`; leading axes are a batch. Under every
    dtype policy it computes in float32 or wider, and returns the kernel's dtype. The
    result is the nearest orthogonal matrix, however far it is, but for `"qr"`, which
    keeps the directions of the first columns, and a callable, which does what it does.

    Raises:
        ValueError: an argument is not of the kind above, or the kernel has an entry
            that is not finite. Compiled code (`fit`) cannot raise: there such entries
            count as 0, the kernel stays orthogonal, and the loss shows the NaN;
            `keras.callbacks.TerminateOnNaN` stops at it.

    Source: the constraint is this package's; see `keras_bsnn.ops.orthogonal` for the
    retractions.

    Example:

    >>> import keras, keras_bsnn
    >>> w = keras.ops.eye(3) + 0.01
    >>> w = keras_bsnn.constraints.Orthogonal()(w)
    >>> bool(keras_bsnn.ops.orthogonal.orthogonality_error(w) < 1e-5)
    True
    """

    batched = True  # leading axes are a batch, DepthStack asks for it

    def __init__(
        self,
        retraction: str | Callable[[Any], Any] = "newton_schulz",
        steps: int = 2,
        tolerance: float = 0.0,
        manifold: manifolds.Stiefel | None = None,
    ):
        if not callable(retraction) and retraction not in [*RETRACTIONS]:
            raise _check.refusal("retraction", KIND, retraction)
        orthogonal.check_steps(steps)
        _check.number(
            "tolerance", tolerance, "a number in [0, 1)", lambda x: 0 <= x < 1
        )
        self.retraction = retraction
        self.steps = steps
        self.tolerance = tolerance
        self.manifold = manifolds.get(manifold)
        self._retract = _retraction(self.manifold, retraction, steps, tolerance)

    def __call__(self, w):
        w = _backend.read(w)
        finite = keras.ops.all(keras.ops.isfinite(w))
        if _backend.is_concrete(finite) and not finite:
            raise ValueError(
                f"A kernel of shape {tuple(w.shape)} cannot be retracted: not all its "
                "entries are finite. A gradient was not finite, or a step overflowed."
            )
        return self._retract(w)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "retraction": serialize(self.retraction),
            "steps": self.steps,
            "tolerance": self.tolerance,
            "manifold": self.manifold.to_dict(),
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "retraction", KIND, deserialize))
