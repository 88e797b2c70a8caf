"""Which moves make a convolution of a size out of matrices."""

import dataclasses
import itertools
import math

import numpy as np
from keras import ops

from keras_bsnn.layers._conv_product import Product
from keras_bsnn.layers._moves import Bounce, Pad, Roll, SpaceToDepth, rolled
from keras_bsnn.ops import _check

PADDINGS = ("circular", "bounce", "same")


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of an orthogonal convolution, each a tuple with one number per axis.

    An inner convolution of stride 1 with `kernel_size - strides + 1` taps comes first,
    and patches of the size of the strides are multiplied by a matrix afterwards. The
    inner one reads, in each group of channels, from other places before its matrix than
    after it, so that the sums of two steps are all its taps.

    Args:
        kernel_size, strides, dilation_rate: As of a layer.
        padding: String, one of `PADDINGS`.
    """

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    padding: str

    def __post_init__(self):
        if self.padding not in PADDINGS:
            kind = f"one of {list(PADDINGS)}"
            raise _check.refusal("padding", kind, self.padding, known=PADDINGS)
        if any(map(int.__lt__, self.kernel_size, self.strides)):
            kind = f"at least strides={self.strides}, as pixels would be left out"
            raise _check.refusal("kernel_size", kind, self.kernel_size)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            kind = f"1 where strides={self.strides} are larger"
            raise _check.refusal("dilation_rate", kind, self.dilation_rate)

    @property
    def rank(self):
        """The number of axes of space."""
        return len(self.kernel_size)

    @property
    def moves(self):
        """Whether groups of channels move: then there is an inner convolution."""
        return self.kernel_size != self.strides

    @property
    def reach(self):
        """How many pixels more than a stride the kernel covers."""
        sizes = zip(self.kernel_size, self.dilation_rate, self.strides, strict=True)
        return tuple((k - 1) * d + 1 - s for k, d, s in sizes)

    @property
    def patches(self):
        """How many patches of the size of the strides cover the reach."""
        pairs = zip(self.reach, self.strides, strict=True)
        return tuple(math.ceil(reach / stride) for reach, stride in pairs)

    def _steps(self):
        """How far the groups of channels read ahead, before and after the matrix."""
        before, after = [], []
        sizes = (self.kernel_size, self.strides, self.dilation_rate, self.reach)
        for k, s, d, reach in zip(*sizes, strict=True):
            half, odd = divmod(k - s, 2)
            before.append([d * e - reach // 2 for e in range(half + 1)])
            after.append([d * (half + odd - e) for e in range(half + odd + 1)])
        return [tuple(itertools.product(*steps)) for steps in (before, after)]

    def product(self, channels, middle):
        """The convolution as a product.

        Args:
            channels: Integer, the channels of the input in each group.
            middle: Integer, the channels between the matrices in each group.
        """
        coarser = () if max(self.strides) == 1 else (SpaceToDepth(self.strides),)
        if not self.moves:
            return Product((coarser, ()))
        before, after = self._steps()
        axes = tuple(range(self.rank))
        first = [self._move(channels, before, axes)]
        second = [self._move(middle, after, axes[::-1]), *coarser]
        if self.padding == "same":
            zeros = zip(self.patches, self.strides, strict=True)
            first.insert(0, Pad(tuple(n * stride for n, stride in zeros)))
            second.append(Pad(self.patches).transposed())
        return Product((tuple(first), tuple(second), ()))

    def _move(self, channels, ahead, axes):
        """The move of groups of channels that read ahead."""
        steps = tuple(tuple(-s for s in group) for group in ahead)
        sizes = self._sizes(channels, len(steps))
        if self.padding == "bounce":
            return Bounce(sizes, steps, axes)
        return Roll(sizes, steps)

    def _sizes(self, channels, count):
        """The sizes of the groups that move differently, as of `np.array_split`."""
        if self.padding == "bounce":
            channels //= 2
        size, rest = divmod(channels, count)
        return tuple(size + (i < rest) for i in range(count))

    def check_channels(self, channels, middle):
        """Raises `ValueError` if there are fewer channels than groups that move."""
        if not self.moves:
            return
        mirrored = 2 if self.padding == "bounce" else 1
        for count, steps in zip((channels, middle), self._steps(), strict=True):
            if count < mirrored * len(steps) or count % mirrored:
                parity = "even and " * (mirrored - 1)
                raise ValueError(
                    f"The number of channels must be {parity}at least "
                    f"{mirrored * len(steps)} in each group, for kernel_size="
                    f"{self.kernel_size}, strides={self.strides} and padding="
                    f"{self.padding!r}. Received: {count}. Use more channels, or "
                    "kernel_size=strides (such as 1), which takes any number."
                )

    def output_space(self, space, is_transposed):
        """The sizes of the output of a layer, from those of its input."""
        pairs = [*zip(space, self.strides, strict=True)]
        if is_transposed:
            return [size and size * stride for size, stride in pairs]
        if any(size and size % stride for size, stride in pairs):
            kind = f"divisors of the size of the images, which is {tuple(space)}"
            raise _check.refusal("strides", kind, self.strides)
        return [size and size // stride for size, stride in pairs]

    def columns(self, channels, middle):
        """For each input channel, a channel in the middle that moves back as it moved.

        With the matrix that maps one to the other, the inner convolution is the
        identity, or the embedding in more channels. Only odd numbers of taps have one.
        """
        before, after = self._steps()
        if len(before) != len(after):
            kind = "such that kernel_size - strides is even, for DeltaOrthogonal to fit"
            raise _check.refusal("kernel_size", kind, self.kernel_size)
        narrow = self._sizes(channels, len(before))
        starts = np.cumsum((0, *self._sizes(middle, len(after))))[:-1]
        found = [start + np.arange(n) for start, n in zip(starts, narrow, strict=True)]
        half = np.concatenate(found)
        if self.padding != "bounce":
            return half
        return np.concatenate([half, middle // 2 + half])

    def explicit_kernel(self, matrices, channels, middle):
        """The kernel of an equal plain convolution.

        It is seen by sending one pixel backwards, through the transpose.

        Args:
            matrices: List of tensors `(groups, rows, columns)`.
            channels: Integer, the channels of the input in each group.
            middle: Integer, the channels between the matrices in each group.
        """
        groups, _, filters = matrices[-1].shape
        ones = (1,) * self.rank
        impulse = ops.reshape(
            ops.eye(filters, dtype=matrices[0].dtype), (1, filters, *ones, filters)
        )
        impulse = ops.broadcast_to(impulse, (groups, *impulse.shape[1:]))
        plain = dataclasses.replace(self, padding="circular").product(channels, middle)
        image, _ = plain.transposed().apply(Pad(self.patches)(impulse), matrices)
        axes = tuple(range(2, 2 + self.rank))
        for axis, reach in zip(axes, self.reach, strict=True):
            image = rolled(image, axis, reach // 2)
        taps = zip(self.reach, self.strides, self.dilation_rate, strict=True)
        index = (..., *(slice(0, r + s, d) for r, s, d in taps), slice(None))
        kernel = ops.transpose(image[index], (*axes, 1, 0, self.rank + 2))
        return ops.reshape(kernel, (*self.kernel_size, channels, groups * filters))
