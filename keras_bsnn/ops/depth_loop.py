"""The loop over the layers of a stack, forwards and backwards.

The forward loop keeps what enters each layer, its *carry*. The gradient is a loop in
reverse: it asks a `Rule` for the vector-Jacobian product of one layer after another.
The cost to compile either does not depend on their number.
"""

from keras import ops

from keras_bsnn.ops import _backend

CHUNK = 64


class Rule:
    """What one layer does to the carry, and its vector-Jacobian product.

    This one works for any function, by differentiating it again in the reverse loop. A
    block that knows better offers its own rule: a subclass, from a method
    `depth_rule()`.

    Args:
        function: callable `(carry, weights, constants)` of one layer; returns the next
            carry, and a tuple of further tensors.
        dtypes: of these tensors.
        differentiable: number of those, counted from the first, that have a gradient.

    Attributes:
        batched: whether `gradients` does work that is better done for many layers at
            once.
    """

    batched = False

    def __init__(self, function, dtypes=(), differentiable=0):
        self.function = function
        self.dtypes = tuple(dtypes)
        self.differentiable = differentiable

    def enter(self, inputs):
        """The carry that enters the first layer."""
        return inputs

    def leave(self, carry):
        """The outputs, from the carry that leaves the last layer."""
        return carry

    def step(self, carry, weights, constants, index):
        """The next carry, and the tensors that this layer gives besides."""
        return self.function(carry, weights, constants)

    def prepare(self, carries, following, start):
        """What `pull` needs of the layers from `start` on, at once, in a tuple.

        Args:
            carries: of shape `(layers, ...)`, what enters each.
            following: the carry that leaves the last of them.
            start: index of the first.
        """
        return (carries,)

    def pull(self, gradient, prepared, weights, constants, gradients, index):
        """The gradient of the carry that enters a layer, from that of the one it gives.

        Args:
            gradient: of the carry that leaves the layer.
            prepared: this layer's slices of what `prepare` returned.
            weights, constants: of this layer.
            gradients: of the differentiable tensors that `step` gave.
            index: of this layer.

        Returns:
            That gradient, and a tuple of tensors for `gradients`.
        """

        def function(carry, *weights):
            carry, outputs = self.function(carry, weights, constants)
            return carry, *outputs[: self.differentiable]

        _, pull = _backend.vjp(function, *prepared, *weights)
        gradient, *of_weights = pull((gradient, *gradients))
        return gradient, tuple(of_weights)

    def pulled_dtypes(self, carry, weights):
        """Of the tensors that `pull` returns for `gradients`."""
        return [w.dtype for w in weights]

    def gradients(self, prepared, pulled, weights):
        """Gradients of the weights of layers, from what `pull` gave for each of them.

        All tensors have a leading axis of the layers.
        """
        return tuple(pulled)


def run(rule, inputs, weights, constants, depth, checkpoint_every=None, keep=True):
    """Applies `depth` layers to `inputs`, one after the other.

    Args:
        rule: a `Rule`.
        inputs: tensor that enters the first layer.
        weights: tensors with a leading axis of `depth`, differentiable.
        constants: the same, not differentiable.
        depth: number of layers.
        checkpoint_every: keep the carry of every k-th layer only, and compute the
            others again in the reverse loop. `None` to keep all.
        keep: whether the forward loop keeps the carries. Without, a gradient starts
            with another forward loop.

    Returns:
        The outputs, and a list of the further tensors that the rule gives, each with a
        leading axis of `depth`.
    """
    if checkpoint_every is not None:
        return _checkpointed(
            rule, inputs, weights, constants, depth, checkpoint_every, keep
        )
    carry = rule.enter(inputs)
    carry, outputs = _loop(rule, carry, weights, constants, depth, keep)
    return rule.leave(carry), outputs


def _checkpointed(rule, inputs, weights, constants, depth, every, keep):
    """A loop over segments, each of which is a loop over layers."""

    def segment(inputs, weights, constants):
        outputs, others = run(rule, inputs, weights, constants, every)
        return outputs, tuple(others)

    split = [[_split(x, every) for x in stacks] for stacks in (weights, constants)]
    segments = Rule(segment, rule.dtypes, rule.differentiable)
    outputs, others = _loop(segments, inputs, *split, depth // every, keep)
    return outputs, [_merge(x) for x in others]


def _loop(rule, carry, weights, constants, depth, keep):
    """The loop that the two gradients below belong to."""
    count = len(weights)

    def function(carry, *stacks):
        carry, _, outputs = _forward(rule, carry, stacks, count, depth, keep=False)
        return carry, *outputs

    def forward(carry, *stacks):
        last, carries, outputs = _forward(rule, carry, stacks, count, depth, keep)
        kept = (carries, last) if keep else (carry,)
        return (last, *outputs), (kept, stacks)

    def backward(residuals, gradients):
        kept, stacks = residuals
        if not keep:
            last, carries, _ = _forward(rule, *kept, stacks, count, depth, keep=True)
            kept = carries, last
        gradient, of_weights = _backward(rule, *kept, stacks, count, depth, gradients)
        return gradient, *of_weights, *[None] * (len(stacks) - count)

    looped = _backend.with_gradient(function, forward, backward)
    carry, *outputs = looped(carry, *weights, *constants)
    return carry, outputs


def _forward(rule, carry, stacks, count, depth, keep):
    def step(index, carry):
        weights, constants = _layer(stacks, index, count)
        following, outputs = rule.step(carry, weights, constants, index)
        return following, (*outputs, carry) if keep else tuple(outputs)

    dtypes = [*rule.dtypes, carry.dtype] if keep else rule.dtypes
    last, outputs = _backend.loop(step, carry, depth, dtypes)
    return last, outputs.pop() if keep else None, outputs


def _backward(rule, carries, last, stacks, count, depth, gradients):
    size = _chunk(depth) if rule.batched else depth
    split = _split(carries, size)
    gradient, *of_outputs = gradients[: 1 + rule.differentiable]
    pulled_dtypes = rule.pulled_dtypes(last, stacks[:count])

    def chunk(j, state):
        gradient, following = state
        start = j * size
        prepared = rule.prepare(split[j], following, start)

        def pull(i, gradient):
            weights, constants = _layer(stacks, start + i, count)
            outputs = [x[start + i] for x in of_outputs]
            slices = [x[i] for x in prepared]
            return rule.pull(gradient, slices, weights, constants, outputs, start + i)

        gradient, pulled = _backend.loop(
            pull, gradient, size, pulled_dtypes, reverse=True
        )
        weights = [_split(w, size)[j] for w in stacks[:count]]
        return (gradient, split[j, 0]), rule.gradients(prepared, pulled, weights)

    if size == depth:
        (gradient, _), of_weights = chunk(0, (gradient, last))
        return gradient, of_weights
    dtypes = [w.dtype for w in stacks[:count]]
    (gradient, _), of_weights = _backend.loop(
        chunk, (gradient, last), depth // size, dtypes, reverse=True
    )
    return gradient, [_merge(x) for x in of_weights]


def _layer(stacks, index, count):
    slices = [x[index] for x in stacks]
    return slices[:count], slices[count:]


def _chunk(depth):
    """The largest divisor of `depth` that is at most `CHUNK`."""
    return max(size for size in range(1, CHUNK + 1) if depth % size == 0)


def _split(x, size):
    return ops.reshape(x, (x.shape[0] // size, size, *ops.shape(x)[1:]))


def _merge(x):
    return ops.reshape(x, (x.shape[0] * x.shape[1], *ops.shape(x)[2:]))
