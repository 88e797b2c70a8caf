"""Which calls of a model do the same, but for the values of their weights."""

from keras_bsnn.depth import _equality
from keras_bsnn.stacking._graph import map_sources


def kinds(graph, shared):
    """A number for each call of a graph, the same for those that do the same.

    Args:
        graph: a `_graph.Graph`.
        shared: set of the ids of variables that are used elsewhere, too. A call of a
            layer that has some does the same as other calls of this layer alone.
    """
    known: dict[str, int] = {}
    fingerprints: dict[int, str] = {}

    def text(call):
        operation = call.operation
        if id(operation) not in fingerprints:
            fingerprints[id(operation)] = str(_equality.fingerprint(operation))
        is_shared = any(id(v) in shared for v in call.variables())
        owner = f"shares weights: {id(operation)}" if is_shared else ""
        return f"{owner} {signature(call)} {fingerprints[id(operation)]}"

    texts = map(text, graph.calls)
    return [known.setdefault(text, len(known)) for text in texts]


def signature(call):
    """What a call has besides its operation and the tensors."""
    arguments = map_sources(lambda source: "tensor", (call.args, call.kwargs))
    return str((arguments, [(tuple(x.shape), x.dtype) for x in call.returned]))
