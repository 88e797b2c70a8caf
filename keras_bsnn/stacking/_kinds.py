"""Which calls of a model do the same, but for the values of their weights."""

import collections
from typing import Any

from keras_bsnn._graph import map_sources
from keras_bsnn.depth import _equality, _programs


def kinds(graph, shared):
    """A number for each call of a graph, the same for those that do the same.

    Args:
        graph: a `_graph.Graph`.
        shared: set of the ids of variables that are used elsewhere, too. A call of a
            layer that has some does the same as other calls of this layer alone.
    """
    known: dict[Any, int] = {}
    texts = [_text(call, shared) for call in graph.calls]
    for places in _alike(graph.calls, texts):
        # They hold different things, with which they may compute nothing.
        programs = {}
        for place in places:
            *owner, fingerprint = texts[place]
            if fingerprint not in programs:
                found = _programs.program(*graph.arguments(place))
                programs[fingerprint] = found or fingerprint
            texts[place] = *owner, programs[fingerprint]
    return [known.setdefault(text, len(known)) for text in texts]


def _text(call, shared):
    """All that a call is: whose weights it has, its signature, and a fingerprint."""
    is_shared = any(id(v) in shared for v in call.variables())
    owner = id(call.operation) if is_shared else None
    return owner, signature(call), str(_equality.fingerprint(call.operation))


def _alike(calls, texts):
    """Lists of the places of layers of one class, signature and shapes of weights.

    Those alone of which the fingerprints are not all the same.
    """
    found = collections.defaultdict(list)
    for place, (call, (owner, called, _)) in enumerate(zip(calls, texts, strict=True)):
        if call.variables() and owner is None:
            shapes = tuple((tuple(v.shape), v.dtype) for v in call.variables())
            found[type(call.operation), called, shapes].append(place)
    return [x for x in found.values() if len({texts[place][2] for place in x}) > 1]


def signature(call):
    """What a call has besides its operation and the tensors."""
    arguments = map_sources(lambda source: "tensor", (call.args, call.kwargs))
    return str((arguments, [(tuple(x.shape), x.dtype) for x in call.returned]))
