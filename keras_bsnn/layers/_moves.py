"""Moves of pixels that keep all lengths, of images `(..., channels, *space, batch)`.

Each is a linear map, and `transposed()` is another one: its inverse, but of `Pad` and
`Crop`. Axes are counted from the end: further ones in front are a batch of such images.
"""

import dataclasses
import math

from keras import ops


@dataclasses.dataclass(frozen=True)
class Roll:
    """Groups of channels move around the image, each by steps of its own.

    Args:
        sizes: Tuple of integers, the numbers of channels of the groups.
        steps: Tuple with a tuple of integers for each group, the steps along each axis
            of space. What leaves the image at one side enters it at the other.
    """

    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]

    def __call__(self, x):
        rank = len(self.steps[0])
        channels = len(x.shape) - rank - 2
        groups, start = [], 0
        for size, steps in zip(self.sizes, self.steps, strict=True):
            group = part(x, channels, slice(start, start + size))
            for axis, step in enumerate(steps, start=channels + 1):
                group = rolled(group, axis, step)
            groups.append(group)
            start += size
        return ops.concatenate(groups, axis=channels)

    def transposed(self):
        return Roll(self.sizes, _negative(self.steps))


@dataclasses.dataclass(frozen=True)
class Bounce:
    """Channels of the first half move, and those of the second half oppositely.

    What leaves the image at an edge enters the partner there, which carries it back.
    Along one axis, two partners are a ring, one half of which is seen from behind.

    Args:
        sizes: Tuple of integers, the numbers of channels of the groups of each half.
        steps: As for `Roll`.
        axes: Tuple with the axes of space, in the order in which they are walked.
    """

    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    axes: tuple[int, ...]

    def __call__(self, x):
        rank = len(self.axes)
        for d in self.axes:
            along = (tuple(s[d] * (i == d) for i in range(rank)) for s in self.steps)
            axis, channels = len(x.shape) - 1 - rank + d, len(x.shape) - 2 - rank
            there, back = _halves(x, channels)
            ring = ops.concatenate([there, ops.flip(back, axis)], axis)
            there, back = _halves(Roll(self.sizes, tuple(along))(ring), axis)
            x = ops.concatenate([there, ops.flip(back, axis)], channels)
        return x

    def transposed(self):
        return Bounce(self.sizes, _negative(self.steps), self.axes[::-1])


@dataclasses.dataclass(frozen=True)
class SpaceToDepth:
    """The pixels of each patch become channels of one pixel.

    Args:
        strides: Tuple of integers, the size of a patch along each axis of space.
    """

    strides: tuple[int, ...]

    def __call__(self, x):
        rank = len(self.strides)
        *front, channels = range(len(x.shape) - rank - 1)
        shape = ops.shape(x)
        split = [*shape[: channels + 1]]
        for length, stride in zip(shape[channels + 1 : -1], self.strides, strict=True):
            split += [length // stride, stride]
        coarse = [channels + 1 + 2 * d for d in range(rank)]
        fine = [axis + 1 for axis in coarse]
        order = [*front, channels, *fine, *coarse, len(split)]
        patches = ops.transpose(ops.reshape(x, (*split, shape[-1])), order)
        depth = shape[channels] * math.prod(self.strides)
        sizes = [split[axis] for axis in coarse]
        return ops.reshape(patches, (*shape[:channels], depth, *sizes, shape[-1]))

    def transposed(self):
        return DepthToSpace(self.strides)


@dataclasses.dataclass(frozen=True)
class DepthToSpace:
    """The transpose, and the inverse, of `SpaceToDepth`."""

    strides: tuple[int, ...]

    def __call__(self, x):
        rank = len(self.strides)
        *front, channels = range(len(x.shape) - rank - 1)
        shape = ops.shape(x)
        space = shape[channels + 1 : -1]
        depth = shape[channels] // math.prod(self.strides)
        split = (*shape[:channels], depth, *self.strides, *space, shape[-1])
        fine = [channels + 1 + d for d in range(rank)]
        pairs = [axis for d in fine for axis in (d + rank, d)]
        order = [*front, channels, *pairs, len(split) - 1]
        image = ops.transpose(ops.reshape(x, split), order)
        sizes = [n * stride for n, stride in zip(space, self.strides, strict=True)]
        return ops.reshape(image, (*shape[:channels], depth, *sizes, shape[-1]))

    def transposed(self):
        return SpaceToDepth(self.strides)


@dataclasses.dataclass(frozen=True)
class Pad:
    """Appends zeros along each axis of space.

    Args:
        amounts: Tuple of integers, their numbers.
    """

    amounts: tuple[int, ...]

    def __call__(self, x):
        front = len(x.shape) - len(self.amounts) - 1
        widths = [(0, 0)] * front + [(0, n) for n in self.amounts] + [(0, 0)]
        return ops.pad(x, widths)

    def transposed(self):
        return Crop(self.amounts)


@dataclasses.dataclass(frozen=True)
class Crop:
    """The transpose of `Pad`: drops the last pixels along each axis of space."""

    amounts: tuple[int, ...]

    def __call__(self, x):
        front = len(x.shape) - len(self.amounts) - 1
        for axis, n in enumerate(self.amounts, start=front):
            x = part(x, axis, slice(None, -n if n else None))
        return x

    def transposed(self):
        return Pad(self.amounts)


def rolled(x, axis, step):
    """What leaves at one end of an axis enters at the other.

    It is `ops.roll` in operations that LiteRT and ONNX have, and no slower.
    """
    size = x.shape[axis]
    if size is None and step:
        size = ops.shape(x)[axis]
        return ops.take(x, (ops.arange(size) - step) % size, axis)
    start = -step % (size or 1)
    if not start:
        return x
    ends = part(x, axis, slice(start, None)), part(x, axis, slice(None, start))
    return ops.concatenate(ends, axis)


def part(x, axis, which):
    """A slice along an axis."""
    index = (*[slice(None)] * axis, which)
    return x[index]


def _halves(x, axis):
    """The first and the second half along an axis."""
    half = ops.shape(x)[axis] // 2
    return part(x, axis, slice(None, half)), part(x, axis, slice(half, None))


def _negative(steps):
    return tuple(tuple(-s for s in group) for group in steps)
