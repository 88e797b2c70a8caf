"""The calls of a model, made anew with loops in the place of runs."""

import collections
from typing import NamedTuple

import keras
from keras import ops

from keras_bsnn import _model
from keras_bsnn._graph import Graph, Source, map_sources
from keras_bsnn.depth._layers import Layers
from keras_bsnn.depth._repeated import Repeated
from keras_bsnn.layers import DepthStack
from keras_bsnn.stacking._kinds import kinds
from keras_bsnn.stacking._opened import NotOpened, may_be_a_loop, opened
from keras_bsnn.stacking._search import runs
from keras_bsnn.stacking._segment import segments


class Found(NamedTuple):
    """The runs of a model; see `Loops`."""

    graph: Graph
    shared: frozenset
    kinds: list
    runs: dict

    @classmethod
    def of(cls, graph, least, elsewhere):
        shared = graph.shared | elsewhere
        numbers = kinds(graph, shared)
        found = {run.start: run for run in runs(graph, numbers, least)}
        return cls(graph, shared, numbers, found)

    def saved(self):
        """The number of calls that loops save."""
        return sum(run.period * (run.parts - 1) for run in self.runs.values())


class Loops:
    """A functional model, made anew.

    Args:
        model: a functional model.
        least: the least number of equal parts of a loop.
        checkpoint_every: as that of `DepthStack`, for all loops.
        elsewhere: set of the ids of variables that are used outside of the model, too.

    Attributes:
        graph: the `Graph` of the model.
        kinds: a number for each of its calls, the same for those that do the same.
        runs: dict from the place of the first call of each run to the run.
        called: dict from the place of a call to what is called there: an operation, a
            `DepthStack` for a run, or the `Loops` of a model, or of a layer that is a
            loop within.
        kept: dict from the name of a layer that holds equal layers to why it is called
            as it is.
        model: the arguments of a `keras.Model` with the loops.
    """

    def __init__(self, model, least, checkpoint_every=None, elsewhere=frozenset()):
        graphs = [Graph(model)]
        late = Graph(model, is_late=True)
        if late.order() != graphs[0].order():
            graphs.append(late)
        found = [Found.of(graph, least, elsewhere) for graph in graphs]
        self.graph, self.shared, self.kinds, self.runs = max(found, key=Found.saved)
        self.called: dict = {}
        self.kept: dict[str, str] = {}
        self._options, self._elsewhere = (least, checkpoint_every), elsewhere
        self._times = collections.Counter(id(x.operation) for x in self.graph.calls)
        self._models: dict = {}
        inputs = [
            keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name)
            for x in model.inputs
        ]
        self._tensors = {Source(-1, i): x for i, x in enumerate(inputs)}
        place = 0
        while place < len(self.graph.calls):
            run = self.runs.get(place)
            (self._loop if run else self._call)(run or place)
            place = run.stop if run else place + 1
        outputs = [self._tensors[source] for source in self.graph.outputs]
        like = _model.graph(model)
        self.model = {
            "inputs": keras.tree.pack_sequence_as(like.input, inputs),
            "outputs": keras.tree.pack_sequence_as(like.output, outputs),
            "name": model.name,
        }

    def __bool__(self):
        return any(isinstance(x, (DepthStack, Loops)) for x in self.called.values())

    def _call(self, place):
        call = self.graph.calls[place]
        args, kwargs = map_sources(self._tensors.get, (call.args, call.kwargs))
        function = self._function(place, call.operation, args, kwargs)
        returned = keras.tree.flatten(function(*args, **kwargs))
        self._tensors |= {Source(place, i): x for i, x in enumerate(returned)}

    def _function(self, place, operation, args, kwargs):
        """What is called in the place of an operation."""
        self.called[place], function = operation, operation
        if _model.is_functional(operation):
            if id(operation) not in self._models:
                loops = self._within(operation, operation)
                made = keras.Model(**loops.model) if loops else operation
                self._models[id(operation)] = loops or operation, made
            self.called[place], function = self._models[id(operation)]
        elif may_be_a_loop(operation, self._options[0]):
            try:
                self._check_calls(operation)
                model = opened(operation, args, kwargs)
                loops = self._within(model, operation)
                if loops:
                    self.called[place] = loops
                    function = _of_tensors(keras.Model(**loops.model))
            except NotOpened as reason:
                self.kept[operation.name] = str(reason)
        return function

    def _within(self, model, operation):
        """The loops of an operation, as a model."""
        elsewhere = self._elsewhere | self.graph.used_by_others(operation)
        return Loops(model, *self._options, elsewhere)

    def _check_calls(self, operation):
        if self._times[id(operation)] > 1:
            raise NotOpened("it is called more than once")

    def _loop(self, run):
        parts, (_, every) = segments(run, self.graph.calls), self._options
        if self._is_repeated(run):
            stack = Repeated(parts[0], run.parts, checkpoint_every=every)
        else:
            stack = DepthStack(Layers(parts), run.parts, checkpoint_every=every)
        inputs = tuple(self._tensors[source] for source in run.entering)
        context = [self._tensors[source] for source in run.context]
        result = stack(inputs if len(inputs) > 1 else inputs[0], *context)
        result, taps = result if run.taps else (result, ())
        for source, x in zip(run.carries, keras.tree.flatten(result), strict=True):
            self._tensors[run.of_part(-1, source)] = x
        for (source, parts), x in zip(run.taps.items(), taps, strict=True):
            self._tensors |= {run.of_part(i, source): x[i] for i in parts}
        self.called[run.start] = stack

    def _is_repeated(self, run):
        part = self.graph.calls[run.start : run.start + run.period]
        return any(id(v) in self.shared for call in part for v in call.variables())


def _of_tensors(model):
    """A model as a function of any arguments: it takes the tensors among them."""

    def function(*args, **kwargs):
        given = keras.tree.flatten((args, kwargs))
        tensors = [x for x in given if isinstance(x, keras.KerasTensor)]
        dtypes = [x.dtype for x in model.inputs]
        cast = [*map(ops.cast, tensors, dtypes)]
        return model(keras.tree.pack_sequence_as(model.input, cast))

    return function
