"""What one layer of a stack does, and its gradient."""

from typing import Any, NamedTuple

from keras import ops

from keras_bsnn import _backend


class Layer(NamedTuple):
    """The tensors that one layer uses besides the carry; each field is a structure.

    Where a rule works on several layers at once, `weights` and `constants` have a
    leading axis of the layers, and `index` is that of the first.

    Attributes:
        weights: the tensors of this layer that have gradients.
        constants: the tensors of this layer that have none.
        shared: tensors that all layers use, and that have gradients.
        fixed: tensors that all layers use, and that have none.
        index: position of the layer in the stack, an integer tensor.

    Example:

    >>> import keras
    >>> from keras_bsnn.depth import Layer
    >>> layer = Layer(weights={"scale": keras.ops.ones(3)})
    >>> layer.weights["scale"].shape, layer.constants
    (TensorShape([3]), ())
    """

    weights: Any = ()
    constants: Any = ()
    shared: Any = ()
    fixed: Any = ()
    index: Any = 0


class Step(NamedTuple):
    """What one layer returns; each field is a structure of tensors.

    Attributes:
        carry: the signal that enters the next layer.
        outputs: further results of this layer, with gradients.
        updates: further results without gradients, such as new moving statistics.
        kept: what the gradient needs. `None` stands for the carry that entered.

    Example:

    >>> import keras
    >>> from keras_bsnn.depth import Step
    >>> step = Step(keras.ops.ones((2, 3)))
    >>> step.carry.shape, step.kept is None
    (TensorShape([2, 3]), True)
    """

    carry: Any
    outputs: Any = ()
    updates: Any = ()
    kept: Any = None


class Rule:
    """One layer of a stack as a function, and its vector-Jacobian product.

    `DepthStack` runs a rule in one loop over depth. A subclass must say what a layer
    computes, in `step`; the gradient then comes from differentiating `step` again in a
    reverse loop, which keeps what entered each layer and nothing else. That works for
    any layer. A subclass that knows its gradient better overrides `prepare`, `pull` and
    `gradients`: operations that do not depend on the layers above belong in `prepare`
    and `gradients`, where they are done for `chunk` layers at once, as one batched
    product.

    A Keras layer offers its rule to `DepthStack` with two methods: `depth_rule()`
    returns the rule, and `depth_tensors()` a `Layer` with the layer's variables. Its
    `call` is `self.depth_rule().apply(inputs, self.depth_tensors())`, so that there is
    one arithmetic.

    Attributes:
        chunk: largest number of layers that `prepare` and `gradients` see at once, an
            integer; `None`, the default, for all layers.
        unroll: number of layers that one turn of the loop computes on a GPU, under JAX,
            an integer. Where layers are small, turns take longer than what they
            compute; the time to compile grows with it. Defaults to 1.

    Source: this package.

    Example: a layer `x + tanh(scale * x)` whose rule has a gradient of its own.

    >>> import keras, keras_bsnn
    >>> from keras import ops
    >>> from keras_bsnn.depth import Layer, Rule, Step
    >>> class BendRule(Rule):
    ...     def step(self, carry, layer):
    ...         bend = ops.tanh(layer.weights["scale"] * carry)
    ...         return Step(carry + bend, kept=(carry, bend))
    ...     def pull(self, gradient, prepared, layer):
    ...         x, bend = prepared
    ...         inner = gradient.carry * (1 - ops.square(bend))
    ...         entering = gradient.carry + layer.weights["scale"] * inner
    ...         return entering, inner * x
    ...     def gradients(self, prepared, pulled, layers):
    ...         return {"scale": ops.sum(pulled, axis=1)}, ()
    >>> class Bend(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=input_shape[-1:], name="scale")
    ...     def depth_rule(self):
    ...         return BendRule()
    ...     def depth_tensors(self):
    ...         return Layer(weights={"scale": self.scale})
    ...     def call(self, inputs):
    ...         return self.depth_rule().apply(inputs, self.depth_tensors())
    >>> stack = keras_bsnn.layers.DepthStack(Bend(), depth=100)
    >>> stack(ops.ones((2, 4))).shape
    TensorShape([2, 4])
    """

    chunk: int | None = None
    unroll: int = 1

    def enter(self, inputs: Any) -> Any:
        """The carry that enters the first layer, from the inputs of the stack."""
        return inputs

    def leave(self, carry: Any) -> Any:
        """The output that belongs to a carry; it must be linear, as a cast is."""
        return carry

    def step(self, carry: Any, layer: Layer) -> Step:
        """Computes one layer.

        Args:
            carry: the signal that enters it.
            layer: its tensors.

        Returns:
            A `Step`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `step`.")

    def apply(self, inputs: Any, layer: Layer) -> Any:
        """The output of a single layer, for its `call`."""
        return self.leave(self.step(self.enter(inputs), layer).carry)

    def entering(self, first: Any, below: Any, is_first: Any) -> Any:
        """The carry that enters the first layer of a chunk, if `prepare` needs it.

        Args:
            first: the carry that enters the stack.
            below: what the layer below the chunk kept; anything if `is_first`.
            is_first: whether the chunk begins with the first layer, a boolean or a
                boolean tensor.
        """
        return None

    def prepare(self, entering: Any, kept: Any, layers: Layer) -> Any:
        """Computes what `pull` needs, for a chunk of layers at once.

        Args:
            entering: what `entering` returned.
            kept: what the layers kept, with a leading axis of the layers.
            layers: their tensors.

        Returns:
            A structure of tensors with that leading axis.
        """
        return kept

    def pull(self, gradient: Step, prepared: Any, layer: Layer) -> tuple[Any, Any]:
        """The gradient of the carry that enters a layer, from that of its results.

        Args:
            gradient: a `Step` with the gradients of `carry` and `outputs`.
            prepared: the slice of what `prepare` returned for this layer.
            layer: its tensors.

        Returns:
            That gradient, and a structure of tensors for `gradients`.
        """

        def function(carry, weights, shared):
            step = self.step(carry, layer._replace(weights=weights, shared=shared))
            return step.carry, step.outputs

        _, pull = _backend.vjp(function, prepared, layer.weights, layer.shared)
        entering, *of_tensors = pull((gradient.carry, gradient.outputs))
        return entering, tuple(of_tensors)

    def pulled_like(self, of_carry: Any, layers: Layer) -> Any:
        """What `pull` probably returns for `gradients`, to spare TensorFlow a trace.

        Args:
            of_carry: a gradient of the carry.
            layers: the tensors of the layers.

        Returns:
            A structure of tensors, of which only the dtypes are used. If they are not
            those that `pull` returns, `pull` is traced again.
        """
        if type(self).pull is Rule.pull:
            return _backend.floats((layers.weights, layers.shared))
        return of_carry

    def gradients(self, prepared: Any, pulled: Any, layers: Layer) -> tuple[Any, Any]:
        """The gradients of the tensors of a chunk of layers.

        Args:
            prepared: what `prepare` returned.
            pulled: what `pull` returned for `gradients`, with a leading axis of the
                layers.
            layers: the tensors of the layers.

        Returns:
            Gradients in the structure of `layers.weights`, with that axis, and of
            `layers.shared`, summed over it.
        """
        weights, shared = pulled
        return weights, _backend.map_tensors(lambda x: ops.sum(x, axis=0), shared)
