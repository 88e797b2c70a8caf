"""The gradient through layers, or steps in time, with orthogonal additive filters."""

from keras import ops

from keras_bsnn.ops import _backend
from keras_bsnn.ops.depth_loop import Rule


class LayerRule(Rule):
    """`alpha filter(h) + beta activation(h @ kernel + bias)`, layer after layer.

    The carry `h` is float32 or wider: `alpha` is so near 1 that bfloat16 would round it
    to 1. Products with the kernel are in `dtype`. In the reverse loop is one of them;
    the others are batched, over many layers at once.

    Args:
        filter: has `apply` and `adjoint`, see `keras_bsnn.layers._filters`.
        activation: a pointwise callable of tensors.
        alpha, beta: numbers.
        dtype: in which to multiply by kernels.
        made: parameters of the filter behind those that are constants: all layers
            share them.
        constants: number of these constants.
    """

    chunk = 64

    def __init__(self, filter, activation, alpha, beta, dtype, made=(), constants=0):
        super().__init__(function=None)
        self.filter = filter
        self.activation = activation
        self.alpha = alpha
        self.beta = beta
        self.dtype = dtype
        self.made = made
        self.constants = constants

    def enter(self, inputs):
        return _backend.at_least_float32(inputs)

    def step(self, carry, weights, constants, index):
        bent = self.activation(self._arguments(carry, weights))
        return self._next(carry, bent, constants)

    def _next(self, carry, bent, constants):
        straight = self.filter.apply(carry, *constants, *self.made)
        return self.alpha * straight + self.beta * ops.cast(bent, carry.dtype), ()

    def _arguments(self, carry, weights):
        """Of the activation; with a leading axis of the layers where inputs have it."""
        kernel, *bias = (ops.cast(w, self.dtype) for w in weights)
        x = ops.matmul(ops.cast(carry, self.dtype), kernel)
        return ops.add(x, ops.expand_dims(bias[0], -2)) if bias else x

    def prepare(self, carries, following, kept, weights, constants, start):
        arguments = self._arguments(_flat(carries), weights)
        _, slopes = self._bend(arguments, carries.dtype)
        return carries, ops.reshape(slopes, ops.shape(carries))

    def _bend(self, x, dtype):
        """The activation, and `beta` times its slope in a dtype."""
        (bent,), pull = _backend.vjp(lambda x: (self.activation(x),), x)
        (slopes,) = pull((ops.ones_like(bent),))
        return bent, self.beta * ops.cast(slopes, dtype)

    def pull(self, gradient, prepared, weights, constants, gradients, index):
        _, slopes = prepared
        kernel = ops.cast(weights[0], self.dtype)
        bent = slopes * gradient
        through = ops.matmul(ops.cast(bent, self.dtype), ops.transpose(kernel))
        straight = self.filter.adjoint(gradient, *constants, *self.made)
        return self.alpha * straight + ops.cast(through, gradient.dtype), (bent,)

    def pulled_dtypes(self, carry, weights):
        return [carry.dtype]

    def gradients(self, prepared, pulled, weights, shared):
        inputs, bent = (_flat(ops.cast(x, self.dtype)) for x in (prepared[0], *pulled))
        found = [ops.matmul(ops.swapaxes(inputs, -1, -2), bent), ops.sum(bent, axis=1)]
        return tuple(ops.cast(x, w.dtype) for x, w in zip(found, weights, strict=False))


class StepRule(LayerRule):
    """`alpha filter(h) + beta activation(x @ kernel + h @ recurrent + bias)`, in time.

    Weights are the inputs `x` of each step, then the kernels and the bias, which all
    steps share; constants are the mask of each step, if there is one, then the filter.
    Where the mask is false, `h` stays as it is.

    Slopes are kept, and kernel gradients summed step by step, while the tensors are in
    the cache: to do either for the whole sequence at once takes longer.

    Args:
        is_masked: whether there is a mask, of shape `(batch, 1)` in each step.
        dtypes: that of the state, if it is to be given after each step.
        others: as of `LayerRule`.
    """

    chunk = 1

    def __init__(self, *others, dtypes=(), is_masked=False):
        super().__init__(*others)
        self.dtypes = dtypes
        self.differentiable = len(dtypes)
        self.is_masked = is_masked

    def _arguments(self, carry, weights):
        carry, x, kernel, recurrent, *bias = (
            ops.cast(w, self.dtype) for w in (carry, *weights)
        )
        return sum(bias, ops.matmul(carry, recurrent) + ops.matmul(x, kernel))

    def _split(self, constants):
        return (constants[0], constants[1:]) if self.is_masked else (None, constants)

    def _next(self, carry, bent, constants):
        mask, filter_ = self._split(constants)
        following, _ = super()._next(carry, bent, filter_)
        if self.is_masked:
            following = ops.where(mask, following, carry)
        return following, (following,) * self.differentiable

    def step_and_keep(self, carry, weights, constants, index):
        arguments = self._arguments(carry, weights)
        bent, slopes = self._bend(arguments, carry.dtype)
        if self.is_masked:
            slopes = ops.where(constants[0], slopes, ops.zeros_like(slopes))
        return *self._next(carry, bent, constants), (slopes,)

    def kept_dtypes(self, carry):
        return [carry.dtype]

    def prepare(self, carries, following, kept, weights, constants, start):
        return carries, *kept

    def pull(self, gradient, prepared, weights, constants, gradients, index):
        mask, filter_ = self._split(constants)
        gradient = sum(gradients, gradient)
        before, pulled = super().pull(
            gradient, prepared, weights[2:], filter_, (), index
        )
        return ops.where(mask, before, gradient) if self.is_masked else before, pulled

    def gradients(self, prepared, pulled, weights, shared):
        states, x, bent = (
            ops.reshape(ops.cast(x, self.dtype), (-1, x.shape[-1]))
            for x in (prepared[0], weights[0], pulled[0])
        )
        kernel = ops.cast(shared[0], self.dtype)
        of_inputs = ops.matmul(bent, ops.transpose(kernel))
        found = [
            ops.reshape(of_inputs, ops.shape(weights[0])),
            ops.matmul(ops.transpose(x), bent),
            ops.matmul(ops.transpose(states), bent),
            ops.sum(bent, axis=0),
        ]
        of = zip(found, (*weights, *shared), strict=False)
        return tuple(ops.cast(x, w.dtype) for x, w in of)


def _flat(x):
    """`(layers, ..., units)` to `(layers, samples, units)`."""
    return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
