"""Whose turn it is: of many kernels, a few in each step, one after the other."""

import math
from dataclasses import dataclass

from keras import ops

from keras_bsnn._types import Tensor


def even_period(count: int, period: int) -> int:
    """Returns the shortest period in which no more matrices are due at once.

    Of `count` matrices, at most `n = ceil(count / period)` are due in a step, both with
    the longer period and with the shortest. That is even, as far as can be: `n` times
    the shortest is below `count + n`.

    Args:
        count: Integer, how many matrices there are.
        period: Integer, the largest number of steps from turn to turn.
    """
    most = math.ceil(count / period)
    return math.ceil(count / max(1, most))


@dataclass(frozen=True)
class Turns:
    """Of a weight with many matrices, those whose turn it is.

    All matrices of a model are numbered; number `i` is due in the steps that leave the
    remainder `i` when they are divided by the period. A stack and its layers alone have
    the same numbers, and so the same turns.

    Args:
        first: Integer, the number of the first matrix of the weight.
        count: Integer, how many it has.
        period: Integer, the number of steps from turn to turn.
    """

    first: int
    count: int
    period: int

    def due(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices that may be due in a step, and which of them are.

        Args:
            step: Scalar integer tensor, the number of earlier steps.

        Returns:
            Tensor of different indices, as many as are due at most, and a boolean
            tensor of the same shape.
        """
        start = (step - self.first) % self.period
        most = math.ceil(self.count / self.period)
        indices = start + self.period * ops.arange(most, dtype=start.dtype)
        is_due = indices < self.count
        # In place of the last one: if the period is not 1, it is none of the others.
        other = (start + 1) % self.count
        return ops.where(is_due, indices, other), is_due

    @property
    def is_always_due(self) -> bool:
        """Whether one of the matrices is due in every step."""
        return self.count >= self.period
