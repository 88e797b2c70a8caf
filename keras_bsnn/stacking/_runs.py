"""Runs of equal parts of a model: what can become a loop."""

from typing import NamedTuple

import keras

from keras_bsnn._graph import Source


class Run(NamedTuple):
    """Parts of equally many calls, each of which does the same with what comes before.

    Attributes:
        start: the place of the first call.
        period: the number of calls of a part.
        parts: the number of them.
        carries: list of `Source`, relative to the start of a part: what the next part
            takes of it.
        entering: list of the `Source` that stands for each in the first part.
        context: list of `Source`: what all parts take from elsewhere.
        taps: dict from `Source`, relative to the start of a part, to the parts of which
            others than the next part take it, a list of integers.
    """

    start: int
    period: int
    parts: int
    carries: list
    entering: list
    context: list
    taps: dict

    @property
    def stop(self):
        """The place after the last call."""
        return self.start + self.period * self.parts

    @property
    def starts(self):
        """The places of the first call of each part."""
        return range(self.start, self.stop, self.period)

    def of_part(self, part, source):
        """The `Source` of a part, from one that is relative to its start."""
        return source._replace(call=source.call + self.starts[part])


class Runs:
    """The calls of a model, to be compared with each other.

    Args:
        graph: a `_graph.Graph`.
        kinds: a number for each of its calls, the same for those that do the same.
    """

    def __init__(self, graph, kinds):
        self.graph, self.kinds = graph, kinds
        self.sources = [call.sources() for call in graph.calls]
        self._users: list[dict[Source, list]] = [{} for _ in graph.calls]
        for place, sources in enumerate([*self.sources, graph.outputs]):
            for source in sources:
                if source.call >= 0:
                    self._users[source.call].setdefault(source, []).append(place)

    def run(self, start, period, least):
        """The longest run of parts of a size from a place on, or `None`."""
        if not self._same_kinds(start, start + period, period):
            return None
        pattern = self._pattern(start + period, start, period)
        entering = self._entering(start, pattern)
        if entering is None or not self._keeps_its_shape(start, period, entering):
            return None
        count = 2
        while self._goes_on(start, count, period, pattern):
            count += 1
        carries = [*entering]
        taps = self._taps(start, period, count, carries)
        if [count - 1] in taps.values():  # which all parts would have to return
            count -= 1
            taps = self._taps(start, period, count, carries)
        if count < least:
            return None
        context = [source for kind, source in _flat(pattern) if kind == "context"]
        found = carries, [*entering.values()], _unique(context), taps
        return Run(start, period, count, *found)

    def _same_kinds(self, a, b, period):
        first, second = (self.kinds[i : i + period] for i in (a, b))
        return len(second) == period and first == second

    def _pattern(self, place, start, period):
        """Of each source of each call of a part, where it is seen from the part."""

        def seen(source):
            relative = Source(source.call - place, source.which)
            if relative.call >= 0:
                return "own", relative
            if source.call >= max(start, place - period):
                return "carry", Source(relative.call + period, source.which)
            return "context", source

        part = self.sources[place : place + period]
        return [[seen(source) for source in sources] for sources in part]

    def _entering(self, start, pattern):
        """What the first part takes for each carry; `None` if it is another part."""
        found: dict[Source, Source] = {}
        for offset, keys in enumerate(pattern):
            for (kind, source), own in zip(
                keys, self.sources[start + offset], strict=True
            ):
                if kind == "own":
                    expected = source._replace(call=source.call + start)
                elif kind == "context":
                    expected = source
                else:
                    expected = found.setdefault(source, own)
                if own != expected or (kind != "own" and own.call >= start):
                    return None
        return found or None

    def _keeps_its_shape(self, start, period, entering):
        """Whether what enters the first part is like what enters the second.

        And whether all of it of floating point has one dtype, as in a stack.
        """

        def spec(source):
            tensor = self.graph.tensor(source)
            return tuple(tensor.shape), tensor.dtype

        firsts = [*map(spec, entering.values())]
        seconds = [spec(carry._replace(call=carry.call + start)) for carry in entering]
        dtypes = {dtype for _, dtype in firsts if keras.backend.is_float_dtype(dtype)}
        return firsts == seconds and len(dtypes) <= 1

    def _goes_on(self, start, count, period, pattern):
        place = start + count * period
        return (
            self._same_kinds(start, place, period)
            and self._pattern(place, start, period) == pattern
        )

    def _taps(self, start, period, count, carries):
        """What others use of parts, but for the carries of the last: a list of them."""
        stop = start + count * period
        found: dict[Source, list] = {}
        for call in range(start, stop):
            part, offset = divmod(call - start, period)
            for source, users in self._users[call].items():
                relative = Source(offset, source.which)
                is_result = part == count - 1 and relative in carries
                if users[-1] >= stop and not is_result:
                    found.setdefault(relative, []).append(part)
        return found


def _flat(pattern):
    return [key for keys in pattern for key in keys]


def _unique(values):
    return [*dict.fromkeys(values)]
