"""Says in words whether the signal gets through."""

import numpy as np

CHANGE = 100.0  # of a norm from one end to the other, that is worth a word
ALIKE = 0.99  # cosine similarity of samples that can hardly be told apart
GAP = 10.0  # isometry gap of samples in few directions
FLAT = 0.95  # share of activations that let no gradient through

ADVICE = {
    "BatchNormalization": (
        "keras_bsnn.layers.BatchNormDense, whose kernels are orthogonal: behind them, "
        "batch normalization bounds gradients at any depth"
    ),
    "Add": (
        "keras_bsnn.layers.ROAFDense(units, alpha=1 - 1 / depth) in place of sums, "
        "which grow with each term"
    ),
    None: (
        "keras_bsnn.layers.OrthogonalDense(units, 'gp_tanh'), an orthogonal kernel and "
        "a normalized activation, or keras_bsnn.models.bsnn_mlp"
    ),
}


def of(report):
    """The verdict on a `SignalReport`: a list of sentences."""
    found = faults(report)
    if not found:
        return [_praise(report)]
    advice = next(words for kind, words in ADVICE.items() if _has(report, kind))
    return [*found, f"Try {advice}."]


def faults(report):
    """What is in the way of the signal, a sentence each."""
    broken = _not_finite(report)
    return [broken] if broken else [x for find in FINDERS if (x := find(report))]


def _has(report, kind):
    return kind is None or kind in report.kinds


def _praise(report):
    ratio = report.gradient[0] / report.gradient[-1]
    return (
        f"The signal gets through {len(report.layers)} layers: gradients at the first "
        f"are {ratio:.2g} times those at the last."
    )


def _not_finite(report):
    is_finite = np.isfinite(report.root_mean_square)
    if not is_finite.all():
        return f"Outputs are not finite from {_at(report, np.argmin(is_finite))} on."
    is_finite = np.isfinite(report.gradient)
    if not is_finite.all():
        last = len(is_finite) - 1 - np.argmin(is_finite[::-1])
        return f"Gradients are not finite from {_at(report, last)} down to the first."
    return None


def _gradients(report):
    return _change("Gradients", report.gradient[::-1], len(report.layers), 1)


def _outputs(report):
    return _change("Outputs", report.root_mean_square, 1, len(report.layers))


def _change(what, norms, start, end):
    first, last = norms[0], norms[-1]
    if not np.isfinite(norms).all():
        return None
    if first == 0:
        return f"{what} are zero at layer {start}."
    if last == 0:
        return f"{what} fall to zero between layer {start} and layer {end}."
    if 1 / CHANGE <= last / first <= CHANGE:
        return None
    how = "fall" if last < first else "grow"
    power = abs(np.log10(last / first))
    return f"{what} {how} by 10^{power:.0f} between layer {start} and layer {end}."


def _alike(report):
    return _above(report, "cosine_similarity", ALIKE, "Samples look alike")


def _directions(report):
    if _alike(report):  # then they are in one direction
        return None
    words = "Samples are in a few directions only"
    return _above(report, "isometry_gap", GAP, words)


def _above(report, name, limit, words):
    start = _from(getattr(report, name)[:-1] > limit)
    if start is None:
        return None
    measure = name.replace("_", " ")
    return f"{words} from {_at(report, start)} on: their {measure} is above {limit:g}."


def _flat(report):
    worst = np.argmax(np.nan_to_num(report.saturated))
    if not report.saturated[worst] > FLAT:
        return None
    return (
        f"Of the units of {_at(report, worst)}, {report.saturated[worst]:.0%} are "
        "saturated and let no gradient through."
    )


def _from(is_so):
    """The first layer from which on it is so; `None` if it is not so at the end."""
    if not is_so.size or not is_so[-1]:
        return None
    return int(np.max(np.flatnonzero(~is_so), initial=-1)) + 1


def _at(report, index):
    return f"layer {index + 1} ({report.layers[index]})"


FINDERS = (_gradients, _outputs, _alike, _directions, _flat)
