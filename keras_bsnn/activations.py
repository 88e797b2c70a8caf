"""Activations that keep signals and gradients at constant size.

They are layers without weights, usable alone or as `activation=` of any Keras layer.
Their constants are computed once, when they are made, and are saved as plain numbers.
"""

import keras

from keras_bsnn import _steps
from keras_bsnn._facts import is_pointwise as is_pointwise
from keras_bsnn._public import public
from keras_bsnn.ops import _check, gaussian

KIND = (
    "the name of a Keras activation, such a name with the prefix 'gp_', or a callable"
)


class _Pointwise(keras.layers.Layer):
    """A weightless layer over a pointwise function; it keeps the dtype of its input."""

    is_pointwise = True

    def __init__(self, function, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.function = _named("function", function)
        self._pointwise = gaussian.as_function(self.function)
        self.supports_masking = True
        self.built = True

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        function = keras.saving.serialize_keras_object(self.function)
        return {**super().get_config(), "function": function}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "function", KIND, deserialize))


@public
class GaussianPoincare(_Pointwise):
    """The Gaussian-Poincaré normalized form `a f(x) + b` of a function `f`.

    For `z ~ N(0, 1)`, the mean square of the result and that of its derivative are 1:
    on wide orthogonal layers it keeps the norms of signals and of gradients.

    Args:
        function: name of a Keras activation, or a pointwise callable.
        root: `"plus"`, `"minus"`, or `"stable"`: the one of the two shifts `b` with the
            smaller `length_slope`.
        scale, shift, length_slope: the constants. They are computed if `scale` is
            `None`, and given when a saved activation is loaded.

    Attributes:
        scale: `a`.
        shift: `b`.
        length_slope: slope of the length map at 1. Below 1, deviations of the squared
            norm die out with depth; at 1 they do a random walk; above 1 they grow.

    Input and output shape: any, the same.

    Raises:
        ValueError: `function` has no GP form (it is constant, discontinuous, not
            finite, not pointwise), or `root` is unknown.

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169, the definition of GPN functions.

    Example:

    >>> import keras_bsnn
    >>> relu = keras_bsnn.activations.GaussianPoincare("relu")
    >>> round(relu.scale, 5), round(relu.shift, 5), round(relu.length_slope, 4)
    (1.41421, -1.12838, 0.3634)
    """

    def __init__(
        self,
        function,
        root="stable",
        scale=None,
        shift=None,
        length_slope=None,
        **kwargs,
    ):
        super().__init__(function, **kwargs)
        gaussian.check_root(root)
        self.root = root
        if scale is None and shift is None and length_slope is None:
            scale, shift = gaussian.gp_constants(self._raw, root)
        _check.number("scale", scale, "a finite number if `shift` is given")
        _check.number("shift", shift, "a finite number if `scale` is given")
        if length_slope is None:
            length_slope = gaussian.length_slope(lambda x: scale * self._raw(x) + shift)
        _check.number("length_slope", length_slope)
        self.scale = scale
        self.shift = shift
        self.length_slope = length_slope

    def _raw(self, x):
        """The function that is normalized."""
        return self._pointwise(x)

    def call(self, inputs):
        return self.scale * self._raw(inputs) + self.shift

    def export_steps(self):
        inner = _steps.of_activation(self.function)
        return [*inner, _steps.scaled(self.scale, self.shift)]

    def get_config(self):
        constants = {
            name: getattr(self, name)
            for name in ("root", "scale", "shift", "length_slope")
        }
        return {**super().get_config(), **constants}


@public
class DepthShaped(GaussianPoincare):
    """The Gaussian-Poincaré normalized form of `x + epsilon f(x)`, shaped for a depth.

    `epsilon` is solved for so that two orthogonal inputs have the correlation `eta`
    after `depth` layers. A normalized `f` alone takes any two inputs of a very deep
    network to a correlation near 1, so that it cannot tell them apart.

    Args:
        function: name of a Keras activation, or a pointwise callable: `f`.
        depth: number of layers that the activation is for, an integer of at least 1.
        eta: the correlation after `depth` layers of two orthogonal inputs, in (0, 1).
            Smaller is closer to a linear network.
        root, scale, shift, length_slope: as in `GaussianPoincare`.
        epsilon: computed if `None`, and given when a saved activation is loaded.

    Attributes:
        epsilon: weight of `f` beside the identity.
        scale, shift, length_slope: as in `GaussianPoincare`.

    Input and output shape: any, the same.

    Raises:
        ValueError: as `GaussianPoincare`; `depth` or `eta` is out of range; no epsilon
            reaches `eta` (`depth` is too small for it, or `f` is affine).

    Source: this package; the equation of Martens et al., arXiv 2110.01765 (deep kernel
    shaping), solved for another family of functions.

    Example:

    >>> import keras_bsnn
    >>> gelu = keras_bsnn.activations.DepthShaped("gelu", depth=200)
    >>> round(gelu.epsilon, 4)
    0.2327
    """

    def __init__(
        self,
        function,
        depth,
        eta=0.5,
        root="stable",
        epsilon=None,
        scale=None,
        shift=None,
        length_slope=None,
        **kwargs,
    ):
        gaussian.check_shaping(depth, eta)
        self.depth = depth
        self.eta = eta
        if epsilon is None:
            epsilon = _reaching(function, depth, eta)
        _check.number("epsilon", epsilon)
        self.epsilon = epsilon
        super().__init__(function, root, scale, shift, length_slope, **kwargs)

    def _raw(self, x):
        return x + self.epsilon * self._pointwise(x)

    def export_steps(self):
        shaped = _steps.of_shaped(self.function, self.epsilon)
        return [*shaped, _steps.scaled(self.scale, self.shift)]

    def get_config(self):
        shape = {name: getattr(self, name) for name in ("depth", "eta", "epsilon")}
        return {**super().get_config(), **shape}


def _reaching(function, depth, eta):
    """The epsilon that takes orthogonal inputs to `eta`."""
    epsilon = gaussian.shaping_epsilon(_named("function", function), depth, eta)
    if epsilon == float("inf"):
        raise ValueError(
            f"`eta`={eta} is out of reach for {function!r} at depth {depth}: two "
            "orthogonal inputs arrive with a smaller correlation, also without the "
            "identity in it. Take a smaller `eta`, or GaussianPoincare."
        )
    return epsilon


@public
class Gained(_Pointwise):
    """`f(gain * x)`: a function with a gain inside.

    Args:
        function: name of a Keras activation, or a pointwise callable: `f`.
        gain: a finite float.

    Input and output shape: any, the same.

    Raises:
        ValueError: `gain` is not a finite number.

    Source: Meterez et al., arXiv 2310.02012, activation shaping.

    Example:

    >>> import numpy as np, keras_bsnn
    >>> half = keras_bsnn.activations.Gained("relu", 0.5)
    >>> np.asarray(half(np.array([-1.0, 3.0]))).tolist()
    [0.0, 1.5]
    """

    def __init__(self, function, gain, **kwargs):
        super().__init__(function, **kwargs)
        _check.number("gain", gain)
        self.gain = gain

    def call(self, inputs):
        return self._pointwise(self.gain * inputs)

    def export_steps(self):
        return [_steps.scaled(self.gain), *_steps.of_activation(self.function)]

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


@keras.saving.register_keras_serializable(package="keras_bsnn")
def sin(x):
    """The sine, of which Keras has no activation."""
    return keras.ops.sin(x)


sin.is_pointwise = True


@public
def get(identifier):
    """The activation that an identifier stands for.

    Args:
        identifier: `None` (the identity), the name of a Keras activation, or `"sin"`,
            such a name with the prefix `"gp_"` for its `GaussianPoincare` form, a
            serialized activation, or a callable.

    Returns:
        A callable.

    Raises:
        ValueError: the identifier is unknown.

    Example:

    >>> import keras_bsnn
    >>> round(keras_bsnn.activations.get("gp_tanh").scale, 5)
    1.46741
    """
    return _named("activation", identifier)


def _named(name, identifier):
    """The same, of an argument that has another name."""
    return _check.interpreted(name, KIND, _known, identifier)


def _known(identifier):
    if isinstance(identifier, str):
        if identifier.startswith("gp_"):
            return GaussianPoincare(_known(identifier.removeprefix("gp_")))
        if identifier == "sin":
            return sin
    return keras.activations.get(identifier)
