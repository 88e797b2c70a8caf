"""Activations that keep signals and gradients at constant size.

They are layers without weights, alone or as the `activation` of any Keras layer. Their
constants are computed when they are made, and are saved as plain numbers.
"""

from typing import Any

import keras
from typing_extensions import Self

from keras_bsnn import _steps
from keras_bsnn._types import Activation, Config, Pointwise, Shape, Tensor
from keras_bsnn.ops import _check, gaussian
from keras_bsnn.ops._integrals import as_function

__all__ = ["DepthShaped", "Gained", "GaussianPoincare", "get"]

KIND = "the name of a Keras activation, one after the prefix 'gp_', or a callable"
NAMES = [p + n for p in ("", "gp_") for n in ("sin", *dir(keras.activations))]


class _Pointwise(keras.layers.Layer):
    """A weightless layer over a pointwise function; it keeps the dtype of its input."""

    is_pointwise = True

    def __init__(self, function: Activation, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.function = _named("function", function)
        self._pointwise = as_function(self.function)
        self.supports_masking = True
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        function = keras.saving.serialize_keras_object(self.function)
        return {**super().get_config(), "function": function}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "function", KIND, deserialize))


@keras.saving.register_keras_serializable(package="keras_bsnn")
class GaussianPoincare(_Pointwise):
    """The Gaussian-Poincaré normalized form `a f(x) + b` of a function `f`.

    For `z ~ N(0, 1)`, the mean square of the result and that of its derivative are 1.
    On wide orthogonal layers the activation therefore keeps the norms of signals and of
    gradients.

    Args:
        function: The name of a Keras activation, or a pointwise callable: `f`.
        root: The choice of the shift `b`, one of two: `"plus"`, `"minus"`, or
            `"stable"`, which takes the one with the smaller `length_slope`. Defaults to
            `"stable"`.
        scale: The constant `a`, a float. Defaults to `None`, which computes it. It is
            given when a saved activation is loaded.
        shift: The constant `b`, a float; given if `scale` is. Defaults to `None`.
        length_slope: The slope of the length map at 1, a float. Defaults to `None`,
            which computes it.
        kwargs: Further arguments of `keras.layers.Layer`.

    Attributes:
        scale: `a`.
        shift: `b`.
        length_slope: The slope of the length map at 1. Below 1, deviations of the
            squared norm die out with depth; at 1 they perform a random walk; above 1
            they grow.

    Input shape: Any. Output shape: the same.

    Raises:
        ValueError: `function` has no Gaussian-Poincaré form (it is constant,
            discontinuous, not finite or not pointwise), or `root` is unknown.

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169, the definition of GPN functions.

    Example:

    >>> import keras_bsnn
    >>> relu = keras_bsnn.activations.GaussianPoincare("relu")
    >>> round(relu.scale, 5), round(relu.shift, 5), round(relu.length_slope, 4)
    (1.41421, -1.12838, 0.3634)
    """

    def __init__(
        self,
        function: Activation,
        root: str = "stable",
        scale: float | None = None,
        shift: float | None = None,
        length_slope: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(function, **kwargs)
        gaussian.check_root(root)
        self.root = root
        if scale is None and shift is None and length_slope is None:
            scale, shift = gaussian.gp_constants(self._raw, root)
        needed = "a finite number if another constant is given"
        self.scale = _check.number("scale", scale, needed)
        self.shift = _check.number("shift", shift, needed)
        if length_slope is None:
            length_slope = gaussian.length_slope(self.call)
        self.length_slope = _check.number("length_slope", length_slope)

    def _raw(self, x: Tensor) -> Tensor:
        """The function that is normalized."""
        return self._pointwise(x)

    def export_steps(self) -> list:
        """What the activation computes, for `keras_bsnn.export`."""
        inner = _steps.of_activation(self.function)
        return [*inner, _steps.scaled(self.scale, self.shift)]

    def call(self, inputs: Tensor) -> Tensor:
        return self.scale * self._raw(inputs) + self.shift

    def get_config(self) -> Config:
        names = ("root", "scale", "shift", "length_slope")
        return {**super().get_config(), **{n: getattr(self, n) for n in names}}


@keras.saving.register_keras_serializable(package="keras_bsnn")
class DepthShaped(GaussianPoincare):
    """The Gaussian-Poincaré normalized form of `x + epsilon f(x)`, shaped for a depth.

    `epsilon` is solved for so that two orthogonal inputs have the correlation `eta`
    after `depth` layers. A normalized `f` alone takes any two inputs of a very deep
    network to a correlation near 1, so that the network cannot tell them apart.

    Args:
        function: The name of a Keras activation, or a pointwise callable: `f`.
        depth: The number of layers that the activation is for, an integer of at least
            1.
        eta: The correlation of two orthogonal inputs after `depth` layers, a float in
            (0, 1). The smaller it is, the closer the network is to a linear one.
            Defaults to 0.5.
        root: The choice of the shift, `"plus"`, `"minus"` or `"stable"`, for
            `GaussianPoincare`. Defaults to `"stable"`.
        epsilon: The weight of `f`, a float. Defaults to `None`, which computes it. It
            is given when a saved activation is loaded.
        scale: The constant `a`, a float. Defaults to `None`, which computes it.
        shift: The constant `b`, a float; given if `scale` is. Defaults to `None`.
        length_slope: The slope of the length map at 1, a float. Defaults to `None`,
            which computes it.
        kwargs: Further arguments of `keras.layers.Layer`.

    Attributes:
        epsilon: The weight of `f` relative to the identity. The others are those of
            `GaussianPoincare`.

    Input shape: Any. Output shape: the same.

    Raises:
        ValueError: `x + epsilon f(x)` has no Gaussian-Poincaré form; `depth` or `eta`
            is out of range; or no epsilon reaches `eta`, because `depth` is too small
            for it or `f` is affine.

    Source: this package, by the equation of Martens et al., arXiv 2110.01765 (deep
    kernel shaping), solved for another family of functions.

    Example:

    >>> import keras_bsnn
    >>> gelu = keras_bsnn.activations.DepthShaped("gelu", depth=200)
    >>> round(gelu.epsilon, 4)
    0.2327
    """

    def __init__(
        self,
        function: Activation,
        depth: int,
        eta: float = 0.5,
        root: str = "stable",
        epsilon: float | None = None,
        scale: float | None = None,
        shift: float | None = None,
        length_slope: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.depth, self.eta = gaussian.check_shaping(depth, eta)
        if epsilon is None:
            epsilon = _epsilon_reaching(function, self.depth, self.eta)
        self.epsilon = _check.number("epsilon", epsilon)
        super().__init__(function, root, scale, shift, length_slope, **kwargs)

    def _raw(self, x: Tensor) -> Tensor:
        return keras.ops.add(x, self.epsilon * self._pointwise(x))

    def export_steps(self) -> list:
        shaped = _steps.of_shaped(self.function, self.epsilon)
        return [*shaped, _steps.scaled(self.scale, self.shift)]

    def get_config(self) -> Config:
        shape = {name: getattr(self, name) for name in ("depth", "eta", "epsilon")}
        return {**super().get_config(), **shape}


def _epsilon_reaching(function: Activation, depth: int, eta: float) -> float:
    """The epsilon that takes orthogonal inputs to the correlation `eta`."""
    epsilon = gaussian.shaping_epsilon(_named("function", function), depth, eta)
    if epsilon == float("inf"):
        raise ValueError(
            f"`eta`={eta} is out of reach for {function!r} at depth {depth}: the "
            "correlation of two orthogonal inputs stays smaller even without the "
            "identity. Use a smaller `eta`, or GaussianPoincare."
        )
    return epsilon


@keras.saving.register_keras_serializable(package="keras_bsnn")
class Gained(_Pointwise):
    """A function with a gain on its input: `f(gain * x)`.

    Args:
        function: The name of a Keras activation, or a pointwise callable: `f`.
        gain: The gain, a finite float.
        kwargs: Further arguments of `keras.layers.Layer`.

    Input shape: Any. Output shape: the same.

    Raises:
        ValueError: `gain` is not a finite number, or `function` is unknown.

    Source: Meterez et al., arXiv 2310.02012, activation shaping.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> half = keras_bsnn.activations.Gained("relu", 0.5)
    >>> np.asarray(half(np.array([-1.0, 3.0]))).tolist()
    [0.0, 1.5]
    """

    def __init__(self, function: Activation, gain: float, **kwargs: Any) -> None:
        super().__init__(function, **kwargs)
        self.gain = _check.number("gain", gain)

    def call(self, inputs: Tensor) -> Tensor:
        return self._pointwise(self.gain * inputs)

    def export_steps(self) -> list:
        """What the activation computes, for `keras_bsnn.export`."""
        return [_steps.scaled(self.gain), *_steps.of_activation(self.function)]

    def get_config(self) -> Config:
        return {**super().get_config(), "gain": self.gain}


@keras.saving.register_keras_serializable(package="keras_bsnn")
def sin(x: Tensor) -> Tensor:
    """The sine, which Keras does not have as an activation."""
    return keras.ops.sin(x)


sin.is_pointwise = True


def get(identifier: Activation) -> Pointwise:
    """The activation that an identifier stands for.

    Args:
        identifier: The name of a Keras activation, or `"sin"`; such a name with the
            prefix `"gp_"` for its `GaussianPoincare` form; a serialized activation; a
            callable; or `None`, which stands for the identity.

    Returns:
        A callable.

    Raises:
        ValueError: The identifier is unknown.

    Example:

    >>> import keras_bsnn
    >>> round(keras_bsnn.activations.get("gp_tanh").scale, 5)
    1.46741
    """
    return _named("activation", identifier)


def _named(name: str, identifier: Activation) -> Pointwise:
    """The activation for an identifier that is the argument `name`."""
    return _check.interpreted(name, KIND, _known, identifier, NAMES)


def _known(identifier: Activation) -> Pointwise:
    if identifier == "sin":
        return sin
    if isinstance(identifier, str) and identifier.startswith("gp_"):
        return GaussianPoincare(_known(identifier.removeprefix("gp_")))
    return keras.activations.get(identifier)
