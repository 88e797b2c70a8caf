"""A convolution as a product of matrices over channels and of moves of pixels.

Tensors have the axes `(..., groups, channels, *space, batch)`: channels are contiguous,
and a matrix acts on all pixels of all images at once.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_bsnn import _backend


class Product(NamedTuple):
    """`x -> ... matrices[1]^T moves[1] matrices[0]^T moves[0] x`.

    If the matrices are orthogonal and the moves keep lengths, so does the product.

    Attributes:
        moves: Tuple with a tuple of moves before each matrix, and one after the last.
        is_transposed: Whether the matrices are used in the reverse order, transposed.
    """

    moves: tuple[tuple[Any, ...], ...]
    is_transposed: bool = False

    def transposed(self):
        """The transpose, which takes the same matrices."""
        moves = (tuple(m.transposed() for m in group[::-1]) for group in self.moves)
        return Product(tuple(moves)[::-1], not self.is_transposed)

    def apply(self, x, matrices):
        """The product with a tensor, and a list of what entered each matrix."""
        entered = []
        ordered = matrices[::-1] if self.is_transposed else matrices
        for i, matrix in enumerate(ordered):
            entered.append(self.moved(i, x))
            x = _mixed(entered[-1], matrix, self.is_transposed)
        return self.moved(-1, x), entered

    def moved(self, i, x):
        """A tensor after those moves that come before matrix `i`."""
        for move in self.moves[i]:
            x = move(x)
        return x

    def gradients(self, entered, pulled, rank):
        """The gradients of the matrices.

        Args:
            entered: What entered each matrix, as from `apply`.
            pulled: The same from `transposed().apply` of the gradient of the output.
            rank: Number of axes of space.
        """
        pairs = [*zip(entered, pulled[::-1], strict=True)]
        if self.is_transposed:
            pairs = [(after, before) for before, after in pairs[::-1]]
        return [
            ops.matmul(_flat(before, rank), ops.swapaxes(_flat(after, rank), -1, -2))
            for before, after in pairs
        ]

    def differentiable(self, x, matrices, rank):
        """The product with a tensor, with its gradient from the transpose."""

        def function(x, matrices):
            return self.apply(x, matrices)[0]

        def forward(x, matrices):
            y, entered = self.apply(x, matrices)
            return y, (entered, matrices)

        def backward(residuals, gradient):
            entered, matrices = residuals
            of_x, pulled = self.transposed().apply(gradient, matrices)
            return of_x, self.gradients(entered, pulled, rank)

        return _backend.with_gradient(function, forward, backward)(x, matrices)


def _mixed(x, matrix, is_transposed):
    """Multiplies the channels by a matrix of each group."""
    rank = len(x.shape) - len(matrix.shape)
    rows = matrix if is_transposed else ops.swapaxes(matrix, -1, -2)
    y = ops.matmul(rows, _flat(x, rank))
    shape = ops.shape(x)
    return ops.reshape(y, (*shape[: -rank - 2], rows.shape[-2], *shape[-rank - 1 :]))


def _flat(x, rank):
    """Space and batch as one axis."""
    return ops.reshape(x, (*ops.shape(x)[: -rank - 1], -1))
