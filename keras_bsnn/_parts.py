"""The parts of a model: the layers that compute, however deeply they are nested."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import keras


class Part(NamedTuple):
    """A layer that computes, or a whole stack of such layers.

    Attributes:
        path: tuple of pairs `(name, depth)`, from the outermost layer to this one:
            `depth` is the number of layers of a stack, and `None` outside of stacks.
        layer: the layer. In a stack, it is the pattern of the layers, whose own weights
            are those of none of them.
        weights: list of the variables that hold its weights, in the order of
            `layer.weights`. In a stack they are the variables of the stack, whose
            shapes start with `stacked`.
    """

    path: tuple
    layer: keras.layers.Layer
    weights: list

    @property
    def name(self) -> str:
        """The names from the outermost layer to this one, such as `"stack/dense"`."""
        return "/".join(name for name, _ in self.path)

    @property
    def stacked(self) -> tuple:
        """The depths of the stacks that it is in: `()`, `(depth,)`, `(2, 3)`, ..."""
        return tuple(depth for _, depth in self.path if depth is not None)

    def names(self) -> list[str]:
        """A name for each single layer, such as `"stack/3/dense"`, in their order."""
        levels = (
            [name] if depth is None else [f"{name}/{i}" for i in range(depth)]
            for name, depth in self.path
        )
        return ["/".join(names) for names in itertools.product(*levels)]

    def within(self, name: str, depth: int | None = None) -> "Part":
        """The same part of an outer layer, which is a stack if `depth` is given."""
        return self._replace(path=((name, depth), *self.path))


def parts(layer: keras.layers.Layer) -> Iterator[Part]:
    """Yields the parts of a layer or a model in the order of its layers.

    A model is the parts of its layers, and a layer that consists of several layers has
    a method `parts()`, which yields them. Each other layer is one part.

    Args:
        layer: a built layer or model. A layer that models share is yielded for each.

    Example:

    >>> import keras
    >>> from keras_bsnn._parts import parts
    >>> from keras_bsnn.layers import DepthStack
    >>> block = DepthStack(keras.layers.Dense(4, name="dense"), 3, name="inner")
    >>> stack = DepthStack(block, 2, name="outer")
    >>> model = keras.Sequential([keras.Input((4,)), stack])
    >>> (part,) = parts(model)
    >>> part.name, part.stacked, [tuple(w.shape) for w in part.weights]
    ('outer/inner/dense', (2, 3), [(2, 3, 4, 4), (2, 3, 4)])
    >>> part.names()[4]
    'outer/1/inner/1/dense'
    """
    if callable(getattr(layer, "parts", None)):
        yield from layer.parts()
    elif isinstance(layer, keras.Model):
        for inner in layer.layers:
            is_model = isinstance(inner, keras.Model)
            for part in parts(inner):
                yield part.within(inner.name) if is_model else part
    elif not isinstance(layer, keras.layers.InputLayer):
        yield Part(((layer.name, None),), layer, layer.weights)


def nested(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields a layer and those that its attributes hold, however deeply, each once."""
    seen, waiting = set(), [layer]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, keras.layers.Layer):
            yield value
        if isinstance(value, keras.Operation):
            value = vars(value)
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)


def generators(layer: keras.layers.Layer) -> Iterator[keras.random.SeedGenerator]:
    """Yields the random generators of a layer and of those in it."""
    for inner in nested(layer):
        for value in vars(inner).values():
            if isinstance(value, keras.random.SeedGenerator):
                yield value
