"""Constraints that keep kernels orthogonal."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import keras
from typing_extensions import Self

from keras_bsnn import _backend, manifolds
from keras_bsnn._types import Config, Retraction, Tensor
from keras_bsnn.ops import _check, orthogonal

__all__ = ["Orthogonal"]

ITERATIVE = {"newton_schulz": orthogonal.newton_schulz, "cayley": orthogonal.cayley}
RETRACTIONS = {**ITERATIVE, "qr": orthogonal.qr}
KIND = f"one of {sorted(RETRACTIONS)} or a callable"


_are_upheld = contextvars.ContextVar("are_upheld", default=False)


@contextlib.contextmanager
def upheld(are_upheld: bool = True) -> Iterator[None]:
    """For an optimizer that keeps kernels orthogonal: `Orthogonal` leaves them to it.

    Args:
        are_upheld: Boolean, whether that is so. Defaults to `True`.
    """
    token = _are_upheld.set(are_upheld)
    try:
        yield
    finally:
        _are_upheld.reset(token)


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
    returns to them. Where the step was so large that the retraction does not get there
    (an error above 5e-6), further steps do, whatever the size.

    It computes in float32 or wider under every dtype policy. The result is the nearest
    orthogonal matrix, however far away it is, except for `"qr"`, which keeps the
    directions of the first columns, and for a callable.

    Args:
        retraction: String, `"newton_schulz"` (matrix products only, the fastest),
            `"cayley"` or `"qr"`; or a callable that maps a tensor `(..., m, n)` in
            float32 or wider to one of the same shape. Defaults to `"newton_schulz"`.
        steps: Integer from 1 to 100, the number of steps of `"newton_schulz"` or
            `"cayley"`. Defaults to 2.
        tolerance: Number in [0, 1), an orthogonality error that may remain. With 0,
            every kernel is retracted at each update. Otherwise only those are whose
            error, as estimated from a few random vectors, is larger: that costs far
            less if the updates are small, or tangent to the orthogonal matrices
            (`OrthogonalDense(tangent_gradient=True)`).
            `keras_bsnn.callbacks.Retract` removes what remains. Defaults to 0.
        manifold: A `keras_bsnn.manifolds.Stiefel`, which says which axes of the kernel
            are rows and columns. Defaults to `None`, which stands for `Stiefel()`: the
            last two axes.

    Call arguments:
        w: Kernel of shape `(..., m, n)`; leading axes are a batch.

    Returns:
        Tensor of the shape and dtype of the kernel.

    Raises:
        ValueError: If an argument is not as described, or if the kernel has an entry
            that is not finite. Compiled code (`fit`) cannot raise: there such entries
            count as 0, the kernel stays orthogonal, and the loss shows the NaN, at
            which `keras.callbacks.TerminateOnNaN` stops.

    Source: the constraint is this package's; see `keras_bsnn.ops.orthogonal` for the
    retractions.

    Example:

    >>> import keras, keras_bsnn
    >>> w = keras.ops.eye(3) + 0.01
    >>> w = keras_bsnn.constraints.Orthogonal()(w)
    >>> bool(keras_bsnn.ops.orthogonal.orthogonality_error(w) < 1e-5)
    True
    """

    batched = True  # it takes a leading axis of the layers of a `DepthStack`

    def __init__(
        self,
        retraction: Retraction = "newton_schulz",
        steps: int = 2,
        tolerance: float = 0.0,
        manifold: manifolds.Stiefel | None = None,
    ):
        if not callable(retraction) and retraction not in [*RETRACTIONS]:
            raise _check.refusal("retraction", KIND, retraction)
        steps = orthogonal.check_steps(steps)
        tolerance = _check.number(
            "tolerance", tolerance, "a number in [0, 1)", lambda x: 0 <= x < 1
        )
        self.retraction = retraction
        self.steps = steps
        self.tolerance = tolerance
        self.manifold = manifolds.get(manifold)
        self._retract = _retraction(self.manifold, retraction, steps, tolerance)

    def __call__(self, w: Tensor) -> Tensor:
        if _are_upheld.get():
            return w
        w = _backend.read(w)
        finite = keras.ops.all(keras.ops.isfinite(w))
        if _backend.is_concrete(finite) and not finite:
            raise ValueError(
                f"A kernel of shape {tuple(w.shape)} cannot be retracted: not all its "
                "entries are finite. A gradient was not finite, or a step overflowed."
            )
        return self._retract(w)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            "retraction": serialize(self.retraction),
            "steps": self.steps,
            "tolerance": self.tolerance,
            "manifold": self.manifold.to_dict(),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "retraction", KIND, deserialize))
