"""A dense layer whose kernel is orthogonal and stays orthogonal."""

from typing import Any

import keras
from keras import ops

from keras_bsnn import _backend, _facts, _steps, activations
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer, Rule, Step
from keras_bsnn.layers import _identifiers, _orthogonal_kernel
from keras_bsnn.ops import _check, orthogonal


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalDense(keras.layers.Layer):
    """`activation(inputs @ kernel + bias)` with an orthogonal kernel.

    The kernel of shape `(inputs, units)` has orthonormal columns (`units <= inputs`) or
    rows (`units > inputs`). It is drawn from the Haar (uniform) distribution, and a
    constraint brings it back after each step of any Keras optimizer, so that what is
    stored is what is used.

    Args:
        units: Positive integer, the size of the output.
        activation: Activation: a name, such as `"relu"`, a callable, or `"gp_tanh"`,
            `"gp_relu"`, ... for Gaussian-Poincaré normalized activations; also an
            object of `keras_bsnn.activations`. Defaults to `None`, the identity.
        use_bias: Boolean, whether to add a bias. Defaults to `True`.
        kernel_initializer: Initializer of the kernel. Defaults to `None`, which stands
            for `keras_bsnn.initializers.HaarOrthogonal()`.
        bias_initializer: Initializer of the bias, of shape `(units,)`. Defaults to
            `"zeros"`.
        kernel_regularizer: Regularizer of the kernel. `"l2"` has the same value for all
            orthogonal kernels. Defaults to `None`.
        bias_regularizer: Regularizer of the bias. Defaults to `None`.
        activity_regularizer: Regularizer of the output. Defaults to `None`.
        kernel_constraint: Constraint of the kernel. Defaults to `"orthogonal"`, which
            stands for `keras_bsnn.constraints.Orthogonal()`. With `None`, the kernel
            goes where the optimizer takes it.
        bias_constraint: Constraint of the bias. Defaults to `None`.
        tangent_gradient: Boolean, whether to project the gradient of the kernel to the
            tangent space of the orthogonal matrices. The retraction would undo what
            this drops; without it, a kernel leaves the orthogonal matrices so slowly
            that `Orthogonal(tolerance=1e-4)` has little to do. The price is one more
            product of the size of the gradient's, or two of the kernel's if that is not
            square. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Floating-point tensor of shape `(batch, ..., inputs)`.

    Returns:
        Tensor of shape `(batch, ..., units)`.

    Raises:
        ValueError: If an argument is not as described, or if the inputs are not of
            floating point, or are ragged.

    Source: Lu, Gould, Ajanthan, arXiv 2006.12169; the retraction after each step and
    the form of the tangent gradient are this package's.

    Example:

    >>> import keras, keras_bsnn
    >>> layer = keras_bsnn.layers.OrthogonalDense(64, activation="gp_tanh")
    >>> layer(keras.random.normal((8, 32))).shape
    TensorShape([8, 64])
    >>> layer.assert_orthogonal()
    """

    def __init__(
        self,
        units: int,
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Identifier = None,
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        activity_regularizer: Identifier = None,
        kernel_constraint: Identifier = "orthogonal",
        bias_constraint: Identifier = None,
        tangent_gradient: bool = False,
        **kwargs: Any,
    ):
        units = _check.integer("units", units)
        use_bias = _check.boolean("use_bias", use_bias)
        tangent_gradient = _check.boolean("tangent_gradient", tangent_gradient)
        regularizer = _identifiers.get("activity_regularizer", activity_regularizer)
        super().__init__(activity_regularizer=regularizer, **kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = _orthogonal_kernel.initializer(kernel_initializer)
        self.bias_initializer = _identifiers.get("bias_initializer", bias_initializer)
        self.kernel_regularizer = _orthogonal_kernel.regularizer(kernel_regularizer)
        self.bias_regularizer = _identifiers.get("bias_regularizer", bias_regularizer)
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
        self.bias_constraint = _identifiers.get("bias_constraint", bias_constraint)
        self.tangent_gradient = tangent_gradient
        self.input_spec = keras.InputSpec(min_ndim=2)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        self.kernel = _orthogonal_kernel.add_to(self, input_shape)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs: Tensor) -> Tensor:
        if hasattr(inputs, "ragged_rank"):
            raise ValueError(
                "`inputs` must not be ragged: pad them, as `to_tensor()` does. "
                f"Received: shape={tuple(inputs.shape)}"
            )
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "`inputs` must be of floating point: cast and standardize them first. "
                f"Received: dtype={keras.backend.standardize_dtype(inputs.dtype)}"
            )
        return self._rule().apply(inputs, self.depth_tensors())

    def depth_rule(self) -> Rule | None:
        """The rule that `DepthStack` runs, `None` to have it made from `call`."""
        return self._rule() if _facts.is_pointwise(self.activation) else None

    def _rule(self) -> Rule:
        return DenseRule(self.activation, self.compute_dtype, self.tangent_gradient)

    def depth_tensors(self) -> Layer:
        """The variables of the layer, as the rule takes them."""
        return Layer([self.kernel, self.bias] if self.use_bias else [self.kernel])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def assert_orthogonal(self, eps: float = 1e-5) -> None:
        """Checks that the kernel is orthogonal.

        Args:
            eps: Number, the largest `orthogonality_error` that the kernel may have.
                Defaults to 1e-5.

        Raises:
            AssertionError: If the error is larger.
        """
        _orthogonal_kernel.assert_orthogonal(self, [self.kernel], eps)

    @property
    def is_affine(self) -> bool:
        """Whether the layer is affine in evaluation, as it has no activation."""
        return _facts.is_linear(self.activation)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        return _steps.of_dense(self)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "bias_initializer": serialize(self.bias_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "bias_regularizer": serialize(self.bias_regularizer),
            "activity_regularizer": serialize(self.activity_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
            "bias_constraint": serialize(self.bias_constraint),
            "tangent_gradient": self.tangent_gradient,
        }


class DenseRule(Rule):
    """`activation(x @ kernel + bias)`, layer after layer.

    Only the pre-activation of each layer is kept. Pointwise operations make from it
    both the slope of the layer and the input of the next one, so that nothing is
    multiplied twice. Kernel gradients are one batched product for many layers.

    The weights of a layer are `[kernel]` or `[kernel, bias]`.

    Args:
        activation: Pointwise callable of tensors.
        dtype: String, the dtype in which to compute.
        tangent: Boolean, whether to project the gradient of the kernel to the tangent
            space of the orthogonal matrices, see `orthogonal.tangent_gradient`.
            Defaults to `False`.
    """

    chunk = 64
    unroll = 16

    def __init__(self, activation, dtype, tangent=False):
        self.activation = activation
        self.dtype = dtype
        self.tangent = tangent

    def step(self, carry, layer):
        kernel, *bias = (ops.cast(w, self.dtype) for w in layer.weights)
        product = orthogonal.tangent_matmul if self.tangent else ops.matmul
        x = sum(bias, product(carry, kernel))
        return Step(self.activation(x), kept=x)

    def entering(self, first, below, is_first):
        return (
            first
            if is_first is True
            else ops.where(is_first, first, self.activation(below))
        )

    def prepare(self, entering, kept, layers):
        outputs, slopes = _backend.value_and_slope(self.activation, kept)
        inputs = ops.concatenate([entering[None], outputs[:-1]])
        return (inputs, slopes, kept) if self.tangent else (inputs, slopes)

    def pull(self, gradient, prepared, layer):
        kernel = ops.cast(layer.weights[0], self.dtype)
        of_product = gradient.carry * prepared[1]
        of_input = ops.matmul(of_product, ops.transpose(kernel))
        return of_input, (of_product, of_input) if self.tangent else (of_product,)

    def gradients(self, prepared, pulled, layers):
        _, *bias = layers.weights
        inputs, of_product = _flat(prepared[0]), _flat(pulled[0])
        if self.tangent:
            products = _flat(prepared[2])
            if bias:
                products = products - ops.cast(bias[0], self.dtype)[:, None]
            of_kernel = orthogonal.tangent_gradient(
                inputs, products, _flat(pulled[1]), of_product
            )
        else:
            of_kernel = ops.matmul(ops.swapaxes(inputs, -1, -2), of_product)
        found = [of_kernel, *(ops.sum(of_product, axis=1) for _ in bias)]
        pairs = zip(found, layers.weights, strict=True)
        return [ops.cast(gradient, w.dtype) for gradient, w in pairs], ()


def _flat(x):
    """Reshapes `(layers, ..., units)` to `(layers, samples, units)`."""
    return ops.reshape(x, (x.shape[0], -1, x.shape[-1]))
