"""Runs of equal parts of a model: what can become a loop."""

import collections
from typing import NamedTuple

from keras_bsnn.depth import _equality
from keras_bsnn.stacking._calls import Source, map_sources


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
    """

    start: int
    period: int
    parts: int
    carries: list
    entering: list
    context: list

    @property
    def stop(self):
        """The place after the last call."""
        return self.start + self.period * self.parts


class Patterns:
    """The calls of a model, to be compared with each other.

    Args:
        calls: list of `_calls.Call`.
        outputs: list of the `Source` of each output of the model.
    """

    def __init__(self, calls, outputs):
        self.calls = calls
        self.sources = [call.sources() for call in calls]
        self.kinds = _numbered(calls)
        self.users: dict[Source, list] = {}
        for place, sources in enumerate(self.sources):
            for source in sources:
                self.users.setdefault(source, []).append(place)
        for source in outputs:
            self.users.setdefault(source, []).append(len(calls))

    def run(self, start, period, least):
        """The longest run of parts of a size from a place on, or `None`."""
        if start + 2 * period > len(self.calls):
            return None
        if not self._same_kinds(start, start + period, period):
            return None
        pattern = self._pattern(start + period, start, period)
        entering = self._entering(start, pattern)
        if entering is None or not self._is_used_within(start, period):
            return None
        count = 2
        while self._goes_on(start, count, period, pattern):
            count += 1
        last = start + (count - 1) * period
        if not self._returns_carries(last, pattern, period):
            count -= 1
        if count < least:
            return None
        context = [source for kind, source in _flat(pattern) if kind == "context"]
        carries = [*entering]
        return Run(
            start, period, count, carries, [*entering.values()], _unique(context)
        )

    def _same_kinds(self, a, b, period):
        return self.kinds[a : a + period] == self.kinds[b : b + period]

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

    def _goes_on(self, start, count, period, pattern):
        place = start + count * period
        return (
            place + period <= len(self.calls)
            and self._same_kinds(start, place, period)
            and self._pattern(place, start, period) == pattern
            and self._is_used_within(place - period, period)
        )

    def _is_used_within(self, place, period):
        """Whether only this part and the next use what a part returns."""
        return all(user < place + 2 * period for user in self._users(place, period))

    def _returns_carries(self, place, pattern, period):
        """Whether what is used of the last part are its carries."""
        carries = {source for kind, source in _flat(pattern) if kind == "carry"}
        for source, users in self.users.items():
            relative = Source(source.call - place, source.which)
            is_of_part = 0 <= relative.call < period
            is_used = any(user >= place + period for user in users)
            if is_of_part and is_used and relative not in carries:
                return False
        return True

    def _users(self, place, period):
        for source, users in self.users.items():
            if place <= source.call < place + period:
                yield from users


def runs(calls, outputs, least):
    """The runs of a model that save the most calls, none of which overlap.

    Args:
        calls: list of `_calls.Call`.
        outputs: list of the `Source` of each output of the model.
        least: the least number of parts.
    """
    patterns = Patterns(calls, outputs)
    found = [
        run
        for period in range(1, len(calls) // 2 + 1)
        for start in range(len(calls) - 2 * period + 1)
        if (run := patterns.run(start, period, least)) and _has_weights(run, calls)
    ]
    found.sort(key=lambda run: (-run.period * (run.parts - 1), run.period, run.start))
    chosen: list[Run] = []
    for run in found:
        if all(run.stop <= other.start or other.stop <= run.start for other in chosen):
            chosen.append(run)
    return sorted(chosen)


def _has_weights(run, calls):
    part = calls[run.start : run.start + run.period]
    return any(map(_variables, part))


def _numbered(calls):
    """A number for each call, the same for those that do the same."""
    users = collections.Counter(id(v) for call in calls for v in _variables(call))
    known: dict[str, int] = {}

    def kind(place, call):
        if any(users[id(v)] > 1 for v in _variables(call)):
            return f"has weights of other calls: {place}"
        return str((_kind(call), _equality.fingerprint(call.operation)))

    kinds = (kind(place, call) for place, call in enumerate(calls))
    return [known.setdefault(text, len(known)) for text in kinds]


def _variables(call):
    return getattr(call.operation, "variables", ())


def _kind(call):
    """What a call has besides its operation and the tensors."""
    shape = map_sources(lambda source: "tensor", (call.args, call.kwargs))
    return shape, [(tuple(x.shape), x.dtype) for x in call.returned]


def _flat(pattern):
    return [key for keys in pattern for key in keys]


def _unique(values):
    return [*dict.fromkeys(values)]
