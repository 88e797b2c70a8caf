"""A dense layer whose kernel is orthogonal, and stays so."""

import keras
from keras import ops

from keras_bsnn import _backend, _facts, _steps, activations, manifolds
from keras_bsnn.depth import Layer, Rule, Step
from keras_bsnn.layers import _identifiers, _orthogonal_kernel
from keras_bsnn.ops import _check, orthogonal


@keras.saving.register_keras_serializable(package="keras_bsnn")
class OrthogonalDense(keras.layers.Layer):
    """`activation(inputs @ kernel + bias)` with an orthogonal kernel.

    The kernel of shape `(inputs, units)` has orthonormal columns (`units <= inputs`) or
    rows (`units > inputs`). It is drawn from the Haar law, and a constraint brings it
    back after each step of any Keras optimizer: what is stored is what is used.

    Args:
        units: size of the output, a positive integer.
        activation: as of `keras.layers.Dense`; also `"gp_tanh"`, `"gp_relu"`, ... for
            Gaussian-Poincaré normalized activations, or an object of
            `keras_bsnn.activations`.
        use_bias: whether to add a bias.
        kernel_initializer: `None` for `HaarOrthogonal()`, or an initializer.
        bias_initializer, bias_regularizer, activity_regularizer, bias_constraint: as of
            `keras.layers.Dense`.
        kernel_constraint: `"orthogonal"` for `Orthogonal()`, another constraint, or
            `None` to let the kernel go where the optimizer takes it.
        tangent_gradient: whether the gradient of the kernel is projected to the tangent
            space of the orthogonal matrices, by one more product of the gradient's size
            (of a kernel that is not square, two of the kernel's). What it drops, the
            retraction would have undone; without it, a kernel leaves the orthogonal
            matrices so slowly that `Orthogonal(tolerance=1e-4)` has little to do.

    Input shape: `(batch, ..., inputs)`, floating point. Output shape:
    `(batch, ..., units)`.

    Raises:
        ValueError: `units` is not a positive integer, an identifier is unknown, or the
            inputs are not of floating point, or are ragged.

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
        units,
        activation=None,
        use_bias=True,
        kernel_initializer=None,
        bias_initializer="zeros",
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint="orthogonal",
        bias_constraint=None,
        tangent_gradient=False,
        **kwargs,
    ):
        _check.integer("units", units)
        _check.boolean("use_bias", use_bias)
        _check.boolean("tangent_gradient", tangent_gradient)
        regularizer = _identifiers.get("activity_regularizer", activity_regularizer)
        super().__init__(activity_regularizer=regularizer, **kwargs)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = _orthogonal_kernel.initializer(kernel_initializer)
        self.bias_initializer = _identifiers.get("bias_initializer", bias_initializer)
        self.bias_regularizer = _identifiers.get("bias_regularizer", bias_regularizer)
        self.kernel_constraint = _orthogonal_kernel.constraint(kernel_constraint)
        self.bias_constraint = _identifiers.get("bias_constraint", bias_constraint)
        self.tangent_gradient = tangent_gradient
        self.input_spec = keras.InputSpec(min_ndim=2)
        self.supports_masking = True

    def build(self, input_shape):
        self.kernel = _orthogonal_kernel.add_to(self, input_shape)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs):
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

    def depth_rule(self):
        """The rule of a stack of these layers, for `DepthStack`."""
        return self._rule() if _facts.is_pointwise(self.activation) else None

    def _rule(self):
        return DenseRule(self.activation, self.compute_dtype, self.tangent_gradient)

    def depth_tensors(self):
        """The variables of the layer, as the rule takes them."""
        return Layer([self.kernel, self.bias] if self.use_bias else [self.kernel])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def assert_orthogonal(self, eps=1e-5):
        """Raises `AssertionError` if the `orthogonality_error` is above `eps`."""
        manifold = manifolds.of(self.kernel) or manifolds.Stiefel()
        error = float(ops.max(manifold.error(self.kernel)))
        if not error <= eps:
            raise AssertionError(
                f"The kernel of layer {self.name!r} is not orthogonal: its error is "
                f"{error:.3g}, more than eps={eps:g}."
            )

    @property
    def is_affine(self) -> bool:
        """Whether it is an affine map in evaluation: without an activation."""
        return _facts.is_linear(self.activation)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        return _steps.of_dense(self)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "bias_initializer": serialize(self.bias_initializer),
            "bias_regularizer": serialize(self.bias_regularizer),
            "activity_regularizer": serialize(self.activity_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
            "bias_constraint": serialize(self.bias_constraint),
            "tangent_gradient": self.tangent_gradient,
        }


class DenseRule(Rule):
    """`activation(x @ kernel + bias)`, layer after layer.

    Of each layer only the pre-activation is kept: from it come both the input and the
    slope of the next layer by pointwise operations, so that nothing is multiplied
    twice. Kernel gradients are one batched product for many layers.

    The weights of a layer are `[kernel]` or `[kernel, bias]`.

    Args:
        activation: a pointwise callable of tensors.
        dtype: name of the dtype in which to compute.
        tangent: whether the gradient of the kernel is projected to the tangent space
            of the orthogonal matrices, see `orthogonal.tangent_gradient`.
    """

    chunk = 64

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
    """`(layers, ..., units)` to `(layers, samples, units)`."""
    return ops.reshape(x, (x.shape[0], -1, x.shape[-1]))
