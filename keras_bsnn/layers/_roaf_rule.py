"""Layers, or steps in time, with orthogonal additive filters, and their gradients."""

from keras import ops

from keras_bsnn import _backend
from keras_bsnn._types import Pointwise
from keras_bsnn.depth import Rule, Step
from keras_bsnn.layers._filters import Filter


class ROAFRule(Rule):
    """`alpha filter(h) + beta activation(h @ kernel + bias)`, layer after layer.

    The carry `h` is float32 or wider: `alpha` is so near 1 that bfloat16 would round it
    to 1. Products with the kernel are computed in `dtype`. One of them is in the
    reverse loop; the others are batched, over many layers at once.

    The weights of a layer are `[kernel]` or `[kernel, bias]`. The parameters of the
    filter are constants; those that all layers share are fixed.

    Args:
        filter: A `keras_bsnn.layers._filters.Filter`.
        activation: Pointwise callable of tensors.
        alpha: Number, the weight of the filter.
        beta: Number, the weight of the activation.
        dtype: String, the dtype of products with kernels, and of the output.
    """

    chunk = 64
    unroll = 16

    def __init__(
        self,
        filter: Filter,
        activation: Pointwise,
        alpha: float,
        beta: float,
        dtype: str,
    ):
        self.filter = filter
        self.activation = activation
        self.alpha = alpha
        self.beta = beta
        self.dtype = dtype

    def enter(self, inputs):
        return _backend.at_least_float32(inputs)

    def leave(self, carry):
        return ops.cast(carry, self.dtype)

    def step(self, carry, layer):
        bend = self.activation(self.pre_activation(carry, layer.weights))
        return Step(self._added(carry, bend, layer))

    def _added(self, carry, bend, layer):
        filtered = self.filter.apply(carry, *layer.constants, *layer.fixed)
        return self.alpha * filtered + self.beta * ops.cast(bend, carry.dtype)

    def pre_activation(self, carry, weights):
        """The argument of the activation, of shape `(..., units)`."""
        return self._mapped(self._seen(ops.cast(carry, self.dtype)), weights)

    def _seen(self, x):
        """What the kernel multiplies, as a matrix, to give each feature."""
        return x

    def _mapped(self, seen, weights):
        """The kernel times what it sees, and the bias."""
        kernel, *bias = (ops.cast(w, self.dtype) for w in weights)
        x = ops.matmul(seen, self._matrix(kernel))
        return ops.add(x, ops.expand_dims(bias[0], -2)) if bias else x

    def _matrix(self, kernel):
        return kernel

    def _bend(self, x, dtype):
        """The activation, and `beta` times its slope in `dtype`."""
        bend, slope = _backend.value_and_slope(self.activation, x)
        return bend, self.beta * ops.cast(slope, dtype)

    def prepare(self, entering, kept, layers):
        seen = _flat(self._seen(ops.cast(kept, self.dtype)))
        x = self._mapped(seen, layers.weights)
        _, slope = self._bend(x, kept.dtype)
        return kept, ops.reshape(slope, ops.shape(kept))

    def pull(self, gradient, prepared, layer):
        of_bend = prepared[1] * gradient.carry
        through = self._through(of_bend, layer.weights[0])
        return self._back(gradient.carry, layer) + through, of_bend

    def _through(self, of_bend, kernel):
        """The gradient of what the kernel multiplies."""
        kernel = ops.cast(kernel, self.dtype)
        through = ops.matmul(ops.cast(of_bend, self.dtype), ops.transpose(kernel))
        return ops.cast(through, of_bend.dtype)

    def _back(self, gradient, layer):
        """The gradient that comes back through the filter."""
        filtered = self.filter.adjoint(gradient, *layer.constants, *layer.fixed)
        return self.alpha * filtered

    def gradients(self, prepared, pulled, layers):
        x, of_bend = (ops.cast(t, self.dtype) for t in (prepared[0], pulled))
        x, of_bend = _flat(self._seen(x)), _flat(of_bend)
        found = [ops.matmul(ops.swapaxes(x, -1, -2), of_bend), ops.sum(of_bend, axis=1)]
        return _cast_like(layers.weights, found), ()


class ROAFStepRule(ROAFRule):
    """`alpha filter(h) + beta activation(x @ kernel + h @ recurrent + bias)`, in time.

    The weights of a step are its input `x`. All steps share the kernels and the bias,
    `[kernel, recurrent]` or `[kernel, recurrent, bias]`. The constants are `[mask]`,
    where the state stays as it is if the mask is false, or `[]`. Fixed are a pair of
    the parameters of the filter and `[mask]`, by which dropout multiplies the `h` that
    enters the recurrent kernel, or `[]`.

    Slopes are kept, and kernel gradients are summed step by step, while the tensors are
    in the cache: doing either for the whole sequence at once takes longer.
    """

    chunk = 1

    def pre_activation(self, carry, weights):
        carry, x, kernel, recurrent, *bias = (
            ops.cast(w, self.dtype) for w in (carry, *weights)
        )
        return sum(bias, ops.matmul(carry, recurrent) + ops.matmul(x, kernel))

    def step(self, carry, layer):
        entering = _dropped(carry, layer)
        x = self.pre_activation(entering, [layer.weights, *layer.shared])
        bend, slope = self._bend(x, carry.dtype)
        following = self._added(carry, bend, _unmasked(layer))
        for mask in layer.constants:
            slope = ops.where(mask, slope, ops.zeros_like(slope))
            following = ops.where(mask, following, carry)
        return Step(following, kept=(entering, slope))

    def prepare(self, entering, kept, layers):
        return kept

    def pull(self, gradient, prepared, layer):
        of_bend = prepared[1] * gradient.carry
        through = _dropped(self._through(of_bend, layer.shared[1]), layer)
        before = self._back(gradient.carry, _unmasked(layer)) + through
        for mask in layer.constants:
            before = ops.where(mask, before, gradient.carry)
        return before, of_bend

    def gradients(self, prepared, pulled, layers):
        states, x, of_bend = (
            ops.reshape(ops.cast(t, self.dtype), (-1, t.shape[-1]))
            for t in (prepared[0], layers.weights, pulled)
        )
        kernel = ops.cast(layers.shared[0], self.dtype)
        of_inputs = ops.matmul(of_bend, ops.transpose(kernel))
        of_inputs = ops.reshape(of_inputs, ops.shape(layers.weights))
        found = [
            ops.matmul(ops.transpose(x), of_bend),
            ops.matmul(ops.transpose(states), of_bend),
            ops.sum(of_bend, axis=0),
        ]
        of_inputs = ops.cast(of_inputs, layers.weights.dtype)
        return of_inputs, _cast_like(layers.shared, found)


def _dropped(x, layer):
    """A state, or its gradient, where the recurrent kernel multiplies it."""
    for mask in layer.fixed[1]:
        x = x * ops.cast(mask, x.dtype)
    return x


def _unmasked(layer):
    """The tensors of a step as the filter takes them, which knows no masks."""
    return layer._replace(constants=(), fixed=layer.fixed[0])


def _cast_like(weights, gradients):
    """As many gradients as there are weights, in the dtypes of the weights."""
    pairs = zip(gradients, weights, strict=False)
    return [ops.cast(gradient, w.dtype) for gradient, w in pairs]


def _flat(x):
    """Reshapes `(layers, ..., units)` to `(layers, samples, units)`."""
    return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
