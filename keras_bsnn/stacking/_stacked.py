"""Models whose equal layers are loops, and back."""

import copy
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from typing_extensions import Self

from keras_bsnn import _model
from keras_bsnn._types import Config
from keras_bsnn.layers import DepthStack
from keras_bsnn.ops import _check
from keras_bsnn.stacking._calls import Source, calls, map_sources
from keras_bsnn.stacking._runs import runs
from keras_bsnn.stacking._segment import segments


@keras.saving.register_keras_serializable(package="keras_bsnn")
class StackedModel(keras.Model):
    """A functional model in which equal layers are loops, as of `stack_layers`.

    Its configuration is that of the model without loops, and its weights are saved as
    those of any model.
    """

    def __init__(self, plain: keras.Model, least: int):
        _check.integer("least", least, 2)
        if not _model.is_functional(plain):
            kind = "a functional model, or a Sequential that is built"
            raise _check.refusal("model", kind, plain)
        loops = _Loops(plain, int(least))
        super().__init__(inputs=loops.inputs, outputs=loops.outputs, name=plain.name)
        self._hidden = _Hidden(plain, least, loops)

    @property
    def report(self) -> str:
        """What became a loop, in words."""
        return "\n".join(self._hidden.loops.report()) or "No layers became a loop."

    def get_config(self) -> Config:
        return {"model": self._hidden.config(), "least": self._hidden.least}

    @classmethod
    def from_config(cls, config: Config, custom_objects: Any = None) -> Self:
        plain = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return cls(plain, config["least"])


class _Hidden:
    """What Keras must not track."""

    def __init__(self, plain, least, loops):
        self.least, self.loops = least, loops
        try:
            self._config = keras.saving.serialize_keras_object(plain)
        except Exception as error:  # of any layer: it matters once it is needed
            self._config = error

    def config(self):
        if isinstance(self._config, Exception):
            raise ValueError(
                "The model that was stacked has no configuration, so that it can be "
                "neither saved nor made anew; see the error above."
            ) from self._config
        return copy.deepcopy(self._config)  # Keras empties what it reads


class _Loops:
    """The calls of a model, made anew with loops in the place of runs.

    Args:
        model: a functional model.
        least: the least number of equal parts.

    Attributes:
        inputs, outputs: tensors in the structures of those of the model.
        called: list of what was called in turn: an operation, or a stack.
    """

    def __init__(self, model, least):
        self.made, outputs = calls(model)
        self.runs = {run.start: run for run in runs(self.made, outputs, least)}
        self.called: list = []
        self._least, self._nested = least, {}
        inputs = [
            keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name)
            for x in model.inputs
        ]
        self._tensors = {Source(-1, i): x for i, x in enumerate(inputs)}
        place = 0
        while place < len(self.made):
            run = self.runs.get(place)
            (self._loop if run else self._call)(run or place)
            place = run.stop if run else place + 1
        found = [self._tensors[source] for source in outputs]
        model = _model.graph(model)
        self.inputs = keras.tree.pack_sequence_as(model.input, inputs)
        self.outputs = keras.tree.pack_sequence_as(model.output, found)

    def _call(self, place):
        call = self.made[place]
        operation = self._stacked(call.operation)
        args, kwargs = map_sources(self._tensors.get, (call.args, call.kwargs))
        returned = keras.tree.flatten(operation(*args, **kwargs))
        self._tensors |= {Source(place, i): x for i, x in enumerate(returned)}
        self.called.append(operation)

    def _stacked(self, operation):
        """The operation, or a model within the model with loops of its own."""
        if not _model.is_functional(operation):
            return operation
        if operation not in self._nested:
            stacked = stack_layers(operation, self._least)
            has_loops = any(True for _ in loops_of(stacked))
            self._nested[operation] = stacked if has_loops else operation
        return self._nested[operation]

    def _loop(self, run):
        stack = DepthStack.from_layers(segments(run, self.made))
        inputs = tuple(self._tensors[source] for source in run.entering)
        context = [self._tensors[source] for source in run.context]
        result = stack(inputs if len(inputs) > 1 else inputs[0], *context)
        last = run.stop - run.period
        carries = [source._replace(call=source.call + last) for source in run.carries]
        self._tensors |= zip(carries, keras.tree.flatten(result), strict=True)
        self.called.append(stack)

    def report(self):
        """Yields a line for each loop."""
        for run in self.runs.values():
            names = [call.operation.name for call in self.made[run.start : run.stop]]
            what = f"{names[0]} to {names[-1]}"
            period = f" of {run.period} calls each" if run.period > 1 else ""
            yield f"{what}: {run.parts} equal parts{period} became a loop."
        for model, stacked in self._nested.items():
            if stacked is not model:
                yield from (
                    f"{model.name}/{line}" for line in stacked.report.split("\n")
                )


def loops_of(model: StackedModel) -> Iterator[DepthStack]:
    """Yields the loops of a model, also those of the models within."""
    for called in model._hidden.loops.called:
        if isinstance(called, StackedModel):
            yield from loops_of(called)
        elif isinstance(called, DepthStack):
            yield called


def stack_layers(model: keras.Model, least: int = 2) -> StackedModel:
    """Returns a model of the same inputs, outputs and numbers, with loops over layers.

    Equal layers that follow one another, or equal groups of layers, become a
    `DepthStack`: the time to compile does not grow with their number. What is not part
    of a loop is shared with the model that is given.

    Args:
        model: a functional or sequential model, which may contain others.
        least: the least number of equal layers to be a loop, an integer of at least 2.
            Defaults to 2.

    Returns:
        A `keras.Model` that is not compiled, with the weights of `model`. Its `report`
        says in words what became a loop. `unstack` is the way back.

    Raises:
        ValueError: an argument is not of the kind above.

    Source: this package. Loops over layers are known from Haiku's `layer_stack` and
    flax's `scan`, of which both ask for another model.

    Example:

    >>> import keras, keras_bsnn
    >>> layers = [keras.layers.Dense(4, "tanh") for _ in range(48)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    >>> stacked = keras_bsnn.stacking.stack_layers(model)
    >>> len(model.weights), len(stacked.weights)
    (98, 4)
    >>> keras_bsnn.stacking.unstack(stacked).count_params()
    965
    """
    return StackedModel(model, least)


def unstack(model: StackedModel) -> keras.Model:
    """Returns a model without loops, as it was before `stack_layers`.

    It is made anew from its configuration, by its own class, and has weights of its
    own, with the values of the loops.

    Args:
        model: a model that `stack_layers` returned, or that was loaded as such.

    Returns:
        A model of the class that was stacked, which is not compiled.

    Raises:
        ValueError: `model` is not such a model, or has no configuration.

    Example:

    >>> import keras, keras_bsnn
    >>> layers = [keras.layers.Dense(4) for _ in range(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> stacked = keras_bsnn.stacking.stack_layers(model)
    >>> [len(m.layers) for m in (stacked, keras_bsnn.stacking.unstack(stacked))]
    [2, 3]
    """
    if not isinstance(model, StackedModel):
        raise _check.refusal("model", "a model of stack_layers", model)
    plain = keras.saving.deserialize_keras_object(model._hidden.config())
    _move(model, plain)
    return plain


def _move(stacked, plain):
    """Copies the values of the weights of a model to those of one without loops."""
    made, _ = calls(plain)
    place = 0
    for called in stacked._hidden.loops.called:
        run = stacked._hidden.loops.runs.get(place)
        operation = made[place].operation
        place = run.stop if run else place + 1
        if run:
            called.copy_to(segments(run, made))
        elif isinstance(called, StackedModel):
            _move(called, operation)
        elif isinstance(called, keras.layers.Layer):
            for ours, theirs in zip(called.variables, operation.variables, strict=True):
                theirs.assign(np.array(ops.convert_to_numpy(ours)))
