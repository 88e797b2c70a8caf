"""Says in words whether signals and gradients pass through a model."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_bsnn.diagnostics._report import SignalReport

CHANGE = 100.0  # factor between the ends that counts as vanishing or exploding
ALIKE = 0.99  # cosine similarity of samples that can hardly be told apart
GAP = 10.0  # isometry gap of samples that span few directions
FLAT = 0.95  # share of saturated units that lets hardly any gradient through

CONVOLUTION = (
    "keras_bsnn.layers.OrthogonalConv{}D(filters, activation='gp_tanh'), a convolution "
    "that keeps the length of every input and a normalized activation"
)
NORMALIZATION = (
    "keras_bsnn.layers.BatchNorm{}, whose kernels are orthogonal: with these, batch "
    "normalization bounds gradients at any depth"
)
SUM = (
    "keras_bsnn.layers.ROAF{}, alpha=1 - 1 / depth) in place of residual sums, which "
    "grow with each term"
)
SEQUENCES: dict = {None: CONVOLUTION.format(1)}
IMAGES = {
    "BatchNormalization": NORMALIZATION.format("Conv2D"),
    "Add": SUM.format("Conv2D(filters"),
    None: f"{CONVOLUTION.format(2)}, or keras_bsnn.models.bsnn_cnn",
}
FEATURES = {
    "BatchNormalization": NORMALIZATION.format("Dense"),
    "Add": SUM.format("Dense(units"),
    None: (
        "keras_bsnn.layers.OrthogonalDense(units, 'gp_tanh'), an orthogonal kernel and "
        "a normalized activation, or keras_bsnn.models.bsnn_mlp"
    ),
}


def sentences(report: "SignalReport") -> list[str]:
    """Returns the verdict on a `SignalReport`: its faults, and what to try."""
    found = faults(report)
    if not found:
        return [_praise(report)]
    return [*found, f"Try {_advice(report.kinds)}."]


def _advice(kinds):
    """What to try, in the words for convolutions where these are more than half."""
    convolutions = [n for kind in kinds for n in "12" if f"Conv{n}D" in kind]
    advice = FEATURES
    if len(convolutions) > sum("Dense" in kind for kind in kinds):
        advice = IMAGES if "2" in convolutions else SEQUENCES
    return next(w for kind, w in advice.items() if kind is None or kind in kinds)


def faults(report: "SignalReport") -> list[str]:
    """Returns a sentence for each thing that keeps the signal from getting through."""
    broken = _not_finite(report)
    return [broken] if broken else [x for find in FINDERS if (x := find(report))]


def severity(report: "SignalReport") -> np.ndarray:
    """Returns how bad each layer is, relative to the limits of the verdict.

    A layer of more than 1 is beyond the limit of at least one measure.
    """
    changes = [
        _change(report.gradient, report.gradient[-1]),
        _change(report.root_mean_square, report.root_mean_square[0]),
    ]
    shares = [np.nan_to_num(report.saturated / FLAT)]
    for values, limit in (
        (report.cosine_similarity, ALIKE),
        (report.isometry_gap, GAP),
    ):
        shares.append(np.append(np.nan_to_num(values[:-1] / limit, posinf=np.inf), 0))
    return np.max([*changes, *shares], axis=0)


def _change(norms, reference):
    """Returns orders of magnitude in units of the limit, infinite if not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = np.abs(np.log(norms / reference)) / np.log(CHANGE)
    return np.where(np.isnan(orders), np.inf, orders)


def _praise(report):
    ratio = report.gradient[0] / report.gradient[-1]
    return (
        f"The signal gets through {len(report.layers)} layers, without vanishing or "
        "exploding gradients, rank collapse or saturation: gradients at the first "
        f"layer are {ratio:.2g} times those at the last."
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
    return _trend("gradients", report.gradient[::-1], len(report.layers), 1)


def _outputs(report):
    return _trend("outputs", report.root_mean_square, 1, len(report.layers))


def _trend(what, norms, start, end):
    first, last = norms[0], norms[-1]
    if first == 0:
        return f"{what.capitalize()} are zero at layer {start}."
    if last == 0:
        return f"Vanishing {what}: they fall to zero from layer {start} to layer {end}."
    if 1 / CHANGE <= last / first <= CHANGE:
        return None
    kind, how = ("Vanishing", "fall") if last < first else ("Exploding", "grow")
    power = abs(np.log10(last / first))
    return (
        f"{kind} {what}: they {how} by a factor of 10^{power:.0f} from layer {start} "
        f"to layer {end}."
    )


def _alike(report):
    is_so = report.cosine_similarity[:-1] > ALIKE
    words = "all samples point in nearly the same direction"
    return _collapse(report, is_so, words, f"a cosine similarity above {ALIKE:g}")


def _directions(report):
    if _alike(report):  # the samples span one direction, which says more
        return None
    is_so = report.isometry_gap[:-1] > GAP
    words = "the samples span few directions"
    return _collapse(report, is_so, words, f"an isometry gap above {GAP:g}")


def _collapse(report, is_so, words, evidence):
    start = _from(is_so)
    if start is None:
        return None
    return f"Rank collapse: {words} from {_at(report, start)} on, with {evidence}."


def _flat(report):
    worst = np.argmax(np.nan_to_num(report.saturated))
    if not report.saturated[worst] > FLAT:
        return None
    return (
        f"Saturation: {report.saturated[worst]:.0%} of the units of "
        f"{_at(report, worst)} have a slope near zero and let no gradient through."
    )


def _from(is_so):
    """Returns the first layer from which on it is so, `None` if not so at the end."""
    if not is_so.size or not is_so[-1]:
        return None
    return int(np.max(np.flatnonzero(~is_so), initial=-1)) + 1


def _at(report, index):
    return f"layer {index + 1} ({report.layers[index]})"


FINDERS = (_gradients, _outputs, _alike, _directions, _flat)
