"""One step of a recurrent network with a random orthogonal filter of its state."""

import keras
from keras import ops

from keras_bsnn import activations
from keras_bsnn.depth import Layer
from keras_bsnn.layers import _filters, _identifiers, _roaf_dense
from keras_bsnn.layers._roaf_rule import ROAFStepRule
from keras_bsnn.ops import roaf


@keras.saving.register_keras_serializable(package="keras_bsnn")
class ROAFCell(keras.layers.Layer):
    """`alpha filter(h) + beta activation(h @ recurrent_kernel + x @ kernel + bias)`.

    The cell of `keras_bsnn.layers.ROAF`, with the conventions of
    `keras.layers.SimpleRNNCell`. `1 / (1 - alpha)` is the number of steps that it
    remembers.

    Args:
        units: size of the state `h` and of the output, a positive integer.
        alpha, activation, filter, beta, use_bias, filter_seed: as of
            `keras_bsnn.layers.ROAFDense`. The filter is stored with the weights.
        kernel_initializer: of the kernel of the inputs `x`.
        recurrent_initializer: `None` for a normal law of variance `1 / units`, or an
            initializer.
        bias_initializer: an initializer.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: regularizers.
        kernel_constraint, recurrent_constraint, bias_constraint: constraints.

    Call arguments: inputs `(batch, features)`, states `[(batch, units)]`. Returns the
    output `(batch, units)` and the new states, of the compute dtype. With a mixed
    policy these are rounded in each step; `ROAF` keeps them in float32.

    Raises:
        ValueError: an argument is not of the kind above.

    Source: Ceni, arXiv 2210.01245, the recurrent network.

    Example:

    >>> import keras, keras_bsnn
    >>> cell = keras_bsnn.layers.ROAFCell(16, alpha=0.99)
    >>> keras.layers.RNN(cell)(keras.random.normal((8, 20, 3))).shape
    TensorShape([8, 16])
    """

    def __init__(
        self,
        units,
        alpha,
        activation="tanh",
        filter="haar",
        beta=None,
        use_bias=True,
        filter_seed=None,
        kernel_initializer="glorot_uniform",
        recurrent_initializer=None,
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        _roaf_dense.check(units, alpha, beta, filter, use_bias)
        super().__init__(**kwargs)
        self.units = units
        self.alpha = alpha
        self.activation = activations.get(activation)
        self.filter = filter
        self.beta = beta
        self.use_bias = use_bias
        self.filter_seed = _filters.seed_of(filter_seed, filter)
        if recurrent_initializer is None:
            recurrent_initializer = _roaf_dense.normal_kernel()
        self.kernel_initializer = _identifiers.get(
            "kernel_initializer", kernel_initializer
        )
        self.recurrent_initializer = _identifiers.get(
            "recurrent_initializer", recurrent_initializer
        )
        self.bias_initializer = _identifiers.get("bias_initializer", bias_initializer)
        self.kernel_regularizer = _identifiers.get(
            "kernel_regularizer", kernel_regularizer
        )
        self.recurrent_regularizer = _identifiers.get(
            "recurrent_regularizer", recurrent_regularizer
        )
        self.bias_regularizer = _identifiers.get("bias_regularizer", bias_regularizer)
        self.kernel_constraint = _identifiers.get(
            "kernel_constraint", kernel_constraint
        )
        self.recurrent_constraint = _identifiers.get(
            "recurrent_constraint", recurrent_constraint
        )
        self.bias_constraint = _identifiers.get("bias_constraint", bias_constraint)
        self.state_size = self.output_size = units

    def build(self, input_shape):
        self.kernel = self._add("kernel", (input_shape[-1], self.units))
        self.recurrent_kernel = self._add(
            "recurrent_kernel", (self.units, self.units), role="recurrent"
        )
        self.bias = self._add("bias", (self.units,)) if self.use_bias else None
        self.filter_parameters, self._made = _filters.parameters(self)

    def _add(self, name, shape, role=None):
        role = role or name
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=getattr(self, f"{role}_initializer"),
            regularizer=getattr(self, f"{role}_regularizer"),
            constraint=getattr(self, f"{role}_constraint"),
        )

    def own_weights(self):
        """Kernels and bias, in the order in which `rule` takes them."""
        bias = [self.bias] if self.use_bias else []
        return [self.kernel, self.recurrent_kernel, *bias]

    def call(self, inputs, states):
        (state,) = states if isinstance(states, (list, tuple)) else [states]
        tensors = self.tensors()._replace(weights=inputs)
        x = ops.cast(self.rule().apply(state, tensors), state.dtype)
        return x, [x] if isinstance(states, (list, tuple)) else x

    def filtered(self, x):
        """Features as the filter alone changes them."""
        filter = _filters.get(self.filter)
        return filter.apply(x, *self.filter_parameters, *self._made)

    def rule(self):
        """What a step does, and its gradient."""
        return ROAFStepRule(
            _filters.get(self.filter),
            self.activation,
            self.alpha,
            roaf.beta_of(self.alpha, self.beta),
            self.compute_dtype,
        )

    def tensors(self):
        """What all steps share, as the rule takes it."""
        return Layer(
            shared=self.own_weights(), fixed=[*self.filter_parameters, *self._made]
        )

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype)]

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        plain = ("units", "alpha", "filter", "beta", "use_bias", "filter_seed")
        objects = (
            f"{role}_{kind}"
            for kind in ("initializer", "regularizer", "constraint")
            for role in ("kernel", "recurrent", "bias")
        )
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in plain},
            "activation": keras.activations.serialize(self.activation),
            **{name: serialize(getattr(self, name)) for name in objects},
        }
