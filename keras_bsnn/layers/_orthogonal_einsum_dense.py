"""A dense layer over any axes, whose kernel is orthogonal and stays orthogonal."""

import functools
import string
from typing import Any

import keras
from keras import ops

from keras_bsnn import _backend, _facts, _steps, activations, manifolds
from keras_bsnn._types import Activation, Identifier, Pointwise, Tensor
from keras_bsnn.constraints import Orthogonal
from keras_bsnn.depth import Layer, Rule, Step
from keras_bsnn.initializers import HaarOrthogonal
from keras_bsnn.ops import _check


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalEinsumDense(keras.layers.EinsumDense):
    """`activation(einsum(equation, inputs, kernel) + bias)` with an orthogonal kernel.

    The kernel is a matrix from the axes that it sums over to the axes that it adds to
    the output, both flattened: `"abc,cde->abde"`, the projection to the heads of an
    attention, has one of shape `(c, d * e)`. Axes that the inputs, the kernel and the
    output share are a batch of independent matrices. Each is drawn from the Haar
    (uniform) distribution, and a constraint brings it back after each step of any Keras
    optimizer.

    Args:
        equation: An einsum equation such as `"ab,bc->ac"` or `"...x,xy->...y"`, as for
            `keras.layers.EinsumDense`.
        output_shape: The shape of the output without the batch, an integer or a tuple
            of integers; `None` stands for sizes that the inputs have.
        activation: The name of a Keras activation, such a name with the prefix
            `"gp_"`, a callable, or `None`. Defaults to `None`.
        bias_axes: A string with the output axes that the bias has, such as `"de"`, or
            `None` for no bias. Defaults to `None`.
        kernel_initializer: An initializer, or `None` for `HaarOrthogonal` of these
            matrices. Defaults to `None`.
        kernel_constraint: A constraint, `"orthogonal"` for `Orthogonal` of these
            matrices, or `None`. Defaults to `"orthogonal"`.
        **kwargs: Further arguments of `keras.layers.EinsumDense`.

    Raises:
        ValueError: `equation` is not of that form, or its kernel is not a matrix.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.OrthogonalEinsumDense("abc,cde->abde", (None, 4, 8))
    >>> layer(keras.random.normal((2, 5, 16))).shape
    TensorShape([2, 5, 4, 8])
    >>> tuple(layer.kernel.shape)
    (16, 4, 8)
    """

    def __init__(
        self,
        equation: str,
        output_shape: int | tuple[int | None, ...],
        activation: Activation = None,
        bias_axes: str | None = None,
        kernel_initializer: Identifier = None,
        kernel_constraint: Identifier = "orthogonal",
        **kwargs: Any,
    ) -> None:
        manifold = _manifold(equation)
        if kernel_initializer is None:
            kernel_initializer = HaarOrthogonal(manifold=manifold)
        if kernel_constraint == "orthogonal":
            kernel_constraint = Orthogonal(manifold=manifold)
        super().__init__(
            equation,
            output_shape,
            activations.get(activation),
            bias_axes,
            kernel_initializer=kernel_initializer,
            kernel_constraint=kernel_constraint,
            **kwargs,
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self._rule().apply(inputs, self.depth_tensors())

    def depth_rule(self) -> Rule | None:
        """The rule of a stack of these layers, for `DepthStack`."""
        return self._rule() if _facts.is_pointwise(self.activation) else None

    def _rule(self) -> "EinsumRule":
        return EinsumRule(self.equation, self.activation, self.compute_dtype)

    def depth_tensors(self) -> Layer:
        """The variables of the layer, as the rule takes them."""
        return Layer([self.kernel] if self.bias is None else [self.kernel, self.bias])

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        make = functools.partial(
            keras.layers.EinsumDense,
            self.equation,
            self.partial_output_shape,
            bias_axes=self.bias_axes,
            dtype=_steps.DTYPE,
        )
        weights = [ops.convert_to_numpy(w) for w in self.depth_tensors().weights]
        return [_steps.Kept(make, weights), *_steps.of_activation(self.activation)]


class EinsumRule(Rule):
    """`activation(einsum(equation, x, kernel) + bias)`, layer after layer.

    The pre-activation of each layer is kept. Kernel gradients are one einsum for many
    layers. The weights of a layer are `[kernel]` or `[kernel, bias]`.

    Args:
        equation: The einsum equation, which may have an ellipsis.
        activation: A pointwise callable of tensors.
        dtype: The name of the dtype in which to compute.
    """

    chunk = 64
    unroll = 16

    def __init__(self, equation: str, activation: Pointwise, dtype: str) -> None:
        self.equation = equation
        self.activation = activation
        self.dtype = dtype

    def step(self, carry: Any, layer: Layer) -> Step:
        kernel, *bias = (ops.cast(w, self.dtype) for w in layer.weights)
        x = sum(bias, ops.einsum(self.equation, carry, kernel))
        return Step(self.activation(x), kept=x)

    def entering(self, first: Any, below: Any, is_first: Any) -> Any:
        if is_first is True:
            return first
        return ops.where(is_first, first, self.activation(below))

    def prepare(self, entering: Any, kept: Any, layers: Layer) -> Any:
        outputs, slopes = _backend.value_and_slope(self.activation, kept)
        return ops.concatenate([entering[None], outputs[:-1]]), slopes

    def pull(self, gradient: Step, prepared: Any, layer: Layer) -> tuple[Any, Any]:
        of_product = gradient.carry * prepared[1]
        inputs, kernel, output = _axes(self.equation, len(of_product.shape))
        equation = f"{output},{kernel}->{inputs}"
        weight = ops.cast(layer.weights[0], self.dtype)
        return ops.einsum(equation, of_product, weight), of_product

    def gradients(self, prepared: Any, pulled: Any, layers: Layer) -> tuple[Any, Any]:
        kernel, *bias = layers.weights
        axes = _axes(self.equation, len(pulled.shape) - 1)
        inputs, weight, output = (f"Z{letters}" for letters in axes)
        of_kernel = ops.einsum(f"{inputs},{output}->{weight}", prepared[0], pulled)
        found = [ops.cast(of_kernel, kernel.dtype)]
        return [*found, *(_summed_like(b, pulled) for b in bias)], ()


def _summed_like(bias: Any, gradient: Any) -> Any:
    """The gradient of biases that were broadcast, with an axis of the layers."""
    extra = len(gradient.shape) - len(bias.shape)
    sizes = (1,) * extra + tuple(bias.shape[1:])
    summed = [i for i, size in enumerate(sizes, start=1) if size == 1]
    found = ops.sum(gradient, axis=summed, keepdims=True)
    return ops.cast(ops.reshape(found, bias.shape), bias.dtype)


def _axes(equation: str, output_ndim: int) -> tuple[str, str, str]:
    """The letters of inputs, kernel and output, without an ellipsis."""
    inputs, kernel, output = _split(equation)
    used = {*inputs, *kernel, *output}
    free = (letter for letter in string.ascii_letters[:-1] if letter not in used)
    count = output_ndim - len(output.replace("...", ""))
    letters = "".join(next(free) for _ in range(count))
    inputs, output = (side.replace("...", letters) for side in (inputs, output))
    return inputs, kernel, output


def _split(equation: str) -> tuple[str, str, str]:
    try:
        sides, output = equation.replace(" ", "").split("->")
        inputs, kernel = sides.split(",")
    except (AttributeError, ValueError):
        kind = "an einsum equation of inputs and a kernel such as 'ab,bc->ac'"
        raise _check.refusal("equation", kind, equation) from None
    return inputs, kernel, output


def _manifold(equation: str) -> manifolds.Stiefel:
    """Which axes of the kernel are rows and columns; the others are a batch."""
    inputs, kernel, output = _split(equation)
    size = len(kernel)
    rows = tuple(i - size for i, axis in enumerate(kernel) if axis not in output)
    columns = tuple(i - size for i, axis in enumerate(kernel) if axis not in inputs)
    if not rows or not columns or {*rows} & {*columns}:
        kind = "one whose kernel sums over an axis and adds one to the output"
        raise _check.refusal("equation", kind, equation)
    return manifolds.Stiefel(rows, columns)
