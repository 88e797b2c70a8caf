"""The gradient of a stack of dense layers, with few matrix products in the loop."""

from keras import ops

from keras_bsnn.ops import _backend, orthogonal
from keras_bsnn.ops.depth_loop import Rule


class DenseRule(Rule):
    """`activation(x @ kernel + bias)`, layer after layer.

    The carry is the pre-activation: from it come both the input and the derivative of
    the next layer by pointwise operations, so that nothing is multiplied twice. Kernel
    gradients are one batched product for many layers.

    Args:
        activation: a pointwise callable of tensors.
        use_bias: whether there is a bias.
        dtype: in which to compute.
        tangent: whether the gradient of the kernel is projected to the tangent space
            of the orthogonal matrices, see `orthogonal.tangent_gradient`.
    """

    chunk = 64

    def __init__(self, activation, use_bias, dtype, tangent=False):
        super().__init__(function=None)
        self.activation = activation
        self.use_bias = use_bias
        self.dtype = dtype
        self.tangent = tangent

    def leave(self, carry):
        return self.activation(carry)

    def step(self, carry, weights, constants, index):
        # What enters the first layer is not a pre-activation.
        x = ops.where(index == 0, carry, self.activation(carry))
        return self._affine(x, weights), ()

    def _affine(self, x, weights):
        kernel, *bias = (ops.cast(w, self.dtype) for w in weights)
        x = ops.matmul(x, kernel)
        return ops.add(x, bias[0]) if self.use_bias else x

    def prepare(self, carries, following, kept, weights, constants, start):
        is_first = ops.reshape(
            ops.equal(start + ops.arange(carries.shape[0]), 0),
            (-1, *[1] * (len(carries.shape) - 1)),
        )
        (outputs,), pull = _backend.vjp(lambda x: (self.activation(x),), carries)
        (slopes,) = pull((ops.ones_like(outputs),))
        inputs = ops.where(is_first, carries, outputs)
        slopes = ops.where(is_first, ops.ones_like(slopes), slopes)
        if not self.tangent:
            return inputs, slopes
        return inputs, slopes, ops.concatenate([carries[1:], following[None]])

    def pull(self, gradient, prepared, weights, constants, gradients, index):
        kernel = ops.cast(weights[0], self.dtype)
        of_input = ops.matmul(gradient, ops.transpose(kernel))
        pulled = (gradient, of_input) if self.tangent else (gradient,)
        return of_input * prepared[1], pulled

    def pulled_dtypes(self, carry, weights):
        return [carry.dtype] * (2 if self.tangent else 1)

    def gradients(self, prepared, pulled, weights, shared):
        inputs, of_outputs = _flat(prepared[0]), _flat(pulled[0])
        if not self.tangent:
            of_kernel = ops.matmul(ops.swapaxes(inputs, -1, -2), of_outputs)
        else:
            outputs = _flat(prepared[2])
            if self.use_bias:
                outputs = outputs - ops.cast(weights[1], self.dtype)[:, None]
            of_kernel = orthogonal.tangent_gradient(
                inputs, outputs, _flat(pulled[1]), of_outputs
            )
        found = [of_kernel]
        if self.use_bias:
            found.append(ops.sum(of_outputs, axis=1))
        return tuple(ops.cast(x, w.dtype) for x, w in zip(found, weights, strict=True))


def _flat(x):
    """`(layers, ..., units)` to `(layers, samples, units)`."""
    return ops.reshape(x, (x.shape[0], -1, x.shape[-1]))
