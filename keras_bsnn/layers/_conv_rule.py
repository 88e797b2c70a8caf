"""What an orthogonal convolution computes, alone and in a stack."""

from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import Rule, Step


class ConvRule(Rule):
    """`activation(product(x) + bias)`, layer after layer.

    Inputs are transposed once, to `(groups, channels, *space, batch)`, in which groups
    of channels are contiguous. The pre-activation of each layer is kept, and what
    enters its second matrix. Kernel gradients are batched products for many layers.

    The weights of a layer are the matrices, and the bias if there is one.

    Args:
        product: A `_conv_product.Product` of moves and matrices.
        groups: Integer, the number of independent convolutions.
        activation: Pointwise callable of tensors.
        dtype: String, the dtype in which to compute.
        channels_first: Boolean, whether channels come before space in the inputs.
    """

    chunk = 8  # what is prepared for more layers would not stay in the caches
    unroll = 4

    def __init__(self, product, groups, activation, dtype, channels_first):
        self.product = product
        self.groups = groups
        self.activation = activation
        self.dtype = dtype
        self.channels_first = channels_first

    def enter(self, inputs):
        first, *space = range(1, len(inputs.shape))
        if not self.channels_first:
            *space, first = first, *space
        carry = ops.transpose(inputs, (first, *space, 0))
        channels = carry.shape[0] // self.groups
        return ops.reshape(carry, (self.groups, channels, *ops.shape(carry)[1:]))

    def leave(self, carry):
        channels = self.groups * carry.shape[1]
        outputs = ops.reshape(carry, (channels, *ops.shape(carry)[2:]))
        *space, batch = range(1, len(outputs.shape))
        order = (0, *space) if self.channels_first else (*space, 0)
        return ops.transpose(outputs, (batch, *order))

    def apply(self, inputs, layer):
        """Of a single layer, whose activation may be one over channels."""
        matrices, bias = self._split(layer.weights)
        carry = self.enter(inputs)
        rank = len(carry.shape) - 3
        y = self.product.differentiable(carry, matrices, rank)
        return self.activation(self.leave(self._biased(y, bias)))

    def step(self, carry, layer):
        matrices, bias = self._split(layer.weights)
        y, entered = self.product.apply(carry, matrices)
        x = self._biased(y, bias)
        return Step(self.activation(x), kept=(x, entered[1:]))

    def entering(self, first, below, is_first):
        if is_first is True:
            return first
        return ops.where(is_first, first, self.activation(below[0]))

    def prepare(self, entering, kept, layers):
        x, entered = kept
        outputs, slopes = _backend.value_and_slope(self.activation, x)
        inputs = ops.concatenate([entering[None], outputs[:-1]])
        return [self.product.moved(0, inputs), *entered], slopes

    def pull(self, gradient, prepared, layer):
        matrices, _ = self._split(layer.weights)
        of_product = gradient.carry * prepared[1]
        of_input, pulled = self.product.transposed().apply(of_product, matrices)
        return of_input, (of_product, pulled[1:])

    def gradients(self, prepared, pulled, layers):
        of_product, after = pulled
        last = self.product.transposed().moved(0, of_product)
        rank = len(of_product.shape) - 4
        found = self.product.gradients(prepared[0], [last, *after], rank)
        of_bias = ops.sum(of_product, axis=[*range(3, len(of_product.shape))])
        pairs = zip([*found, of_bias], layers.weights, strict=False)
        return [ops.reshape(ops.cast(g, w.dtype), w.shape) for g, w in pairs], ()

    def pulled_like(self, of_carry, layers):
        return of_carry, [of_carry] * (len(self.product.moves) - 2)

    def _split(self, weights):
        """The matrices of the groups, and a list of the bias or none, in the dtype."""
        weights = [ops.cast(w, self.dtype) for w in weights]
        count = len(self.product.moves) - 1
        grouped = [
            ops.reshape(w, (self.groups, *w.shape[-2:])) for w in weights[:count]
        ]
        return grouped, weights[count:]

    def _biased(self, y, bias):
        ones = (1,) * (len(y.shape) - 2)
        return sum((ops.reshape(b, (self.groups, -1, *ones)) for b in bias), y)
