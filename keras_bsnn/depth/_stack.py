"""A stack of equal layers as one layer: depth is an axis of its weights."""

from collections.abc import Sequence
from typing import Any

import keras
from typing_extensions import Self

from keras_bsnn import _backend, _facts, _steps
from keras_bsnn._types import Config, Shape
from keras_bsnn.depth import _arguments, _checkpoints, _checks, _given, _layer_drop
from keras_bsnn.depth._layers import Layers
from keras_bsnn.depth._looped import LoopedLayers
from keras_bsnn.ops import _check


@keras.saving.register_keras_serializable(package="keras_bsnn")
class DepthStack(LoopedLayers):
    """`depth` layers like `block`, one after the other, each with its own weights.

    A weight of the block of shape `shape` is here one weight of `(depth, *shape)`, and
    the layers are one loop: the time to compile does not grow with depth. The gradient
    keeps what entered each layer and nothing else.

    What the block does to a weight is done to each layer: initializers (with seeds of
    their own, derived from the block's), constraints, regularizers, moving statistics,
    random numbers of layers such as `Dropout`, losses. Masks go to every layer.

    Args:
        block: `keras.Layer` or `keras.Model` that returns what it takes: a tensor of
            the shape of its input, or a structure of such. It is the pattern of all
            layers and belongs to the stack. A layer must be new, not built; a model is
            taken without its weights. Any layer will do whose weights come from
            `add_weight`.
        depth: integer of at least 1, the number of layers.
        return_sequences: boolean, whether to return the output of every layer. Defaults
            to `False`.
        checkpoint_every: `k`, a divisor of `depth`, to keep only what enters every k-th
            layer, and compute the rest again for the gradient: for a third more time,
            memory falls to that of `depth / k + k` layers. `"sqrt"` is the divisor
            nearest to the square root of `depth`; that of a prime number is 1, by which
            nothing is saved but what a layer keeps of its own. A tuple `(k, m, ...)`,
            of which each number divides the one before it, keeps only what enters every
            m-th layer of such a segment, too, and so on: for a third more time each,
            memory falls to `depth / k + k / m + m` layers, and a copy of the weights of
            `k`. Defaults to `None`, to keep all.
        per_layer: dict from names of arguments of the block to arrays with a leading
            axis of `depth`, such as a schedule of rates, or dicts of such: each layer
            is called with its own slices, as with those of `per_layer` of a call, but
            they are constants that the configuration holds. Defaults to `None`.
        layer_drop: probability from 0 to 1 with which each layer is skipped in
            training, or one for each layer: what enters it passes through, it is not
            computed, nor is its gradient, which is zero, it adds no loss and leaves its
            statistics as they are. Nothing is scaled for it, and in evaluation all
            layers run. It is for blocks that return what they take and no more.
            Defaults to `None`, to skip none.
        **kwargs: arguments of `keras.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: tensor of shape `(batch, ...)`, or a tuple or dict of such: what enters
            the first layer.
        *context: further tensors, or structures of such, that every layer is called
            with after its input: an attention mask, a conditioning vector, the outputs
            of an encoder. Those of floating point have gradients.
        per_layer: dict from names of arguments of the block to tensors, or structures
            of such, with a leading axis of `depth`: each layer is called with its own
            slices. Those of floating point have gradients. No name may be one of the
            stack's own `per_layer`. Defaults to `None`.
        **named: further arguments of the block by their names, for every layer:
            tensors, or structures of such, as those of `context`, and flags, which
            are no tensors.
        training: boolean, as in the call of every Keras layer.
        mask: boolean mask of the inputs, `(batch, ...)`, for every layer.

    Returns:
        The output of the last layer, of the shape of `inputs`. With `return_sequences`,
        those of all layers, of shape `(batch, depth, ...)`. If the block returns a
        tuple of that and something more, such a tuple: the others are what all layers
        return there, with a leading axis of `depth`. So a cache goes through a stack:
        in by `per_layer`, out as the second result.

    Raises:
        ValueError: an argument is not of the kind above, or the block has no weights,
            changes the shape, has a weight without initializer, or changes a variable
            that is not its own.

    Source: this package. A loop over layers is known from Haiku's `layer_stack`;
    `layer_drop` is from "Reducing transformer depth on demand with structured dropout"
    (Fan et al., 2019, arXiv:1909.11556).

    Example:

    >>> import keras, keras_bsnn
    >>> stack = keras_bsnn.layers.DepthStack(
    ...     keras_bsnn.layers.OrthogonalDense(16, "gp_tanh"), depth=1000)
    >>> stack(keras.random.normal((8, 16))).shape
    TensorShape([8, 16])
    >>> [(w.name, tuple(w.shape)) for w in stack.weights]
    [('kernel', (1000, 16, 16)), ('bias', (1000, 16))]
    >>> stack.layer_at(-1).units
    16
    """

    def __init__(
        self,
        block: keras.Layer,
        depth: int,
        return_sequences: bool = False,
        checkpoint_every: int | str | Sequence[int] | None = None,
        per_layer: dict[str, Any] | None = None,
        layer_drop: float | Sequence[float] | None = None,
        **kwargs: Any,
    ):
        if not isinstance(block, Layers):
            _checks.check_block(block)
        _check.integer("depth", depth)
        super().__init__(block, depth, autocast=False, **kwargs)
        self.return_sequences = _check.boolean("return_sequences", return_sequences)
        self.checkpoint_every = _checkpoints.checked(checkpoint_every, self.depth)
        self._hidden.per_layer = _given.given(per_layer, self.depth, self.block)
        self.layer_drop = _layer_drop.checked(layer_drop, self.depth)
        if self.layer_drop is not None:
            self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = self.block.supports_masking

    def __call__(self, inputs, *context, per_layer=None, **kwargs):
        kwargs, named = _arguments.parted(kwargs, self.call)
        of_layers = _given.joined(self.per_layer, per_layer)
        self._hidden.learn(_arguments.Arguments(inputs, context, of_layers, *named))
        given = {"per_layer": per_layer, "keywords": named[0], "flags": named[1]}
        return super().__call__(inputs, *context, **given, **kwargs)

    def call(
        self,
        inputs: Any,
        *context: Any,
        per_layer: dict[str, Any] | None = None,
        keywords: dict[str, Any] | None = None,
        flags: dict[str, Any] | None = None,
        training: bool | None = None,
        mask: Any = None,
        inputs_mask: Any = None,
        context_mask: Any = None,
        keywords_mask: Any = None,
    ) -> Any:
        """As in the class; `keywords` and `flags` are what `named` is parted into."""
        masks = (inputs_mask if mask is None else mask), context_mask, keywords_mask
        call = inputs, context, per_layer, keywords, flags, masks
        return self._with_effects(self._run(_arguments.Arguments(*call), training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.return_sequences:
            return (input_shape[0], self.depth, *input_shape[1:])
        return tuple(input_shape)

    def compute_output_spec(self, inputs: Any, *context: Any, **kwargs: Any) -> Any:
        def spec(x):
            dtype = self.compute_dtype if _backend.is_float(x) else x.dtype
            return keras.KerasTensor(self.compute_output_shape(x.shape), dtype)

        def stacked(x):
            return keras.KerasTensor((self.depth, *x.shape), x.dtype)

        result = _backend.map_tensors(spec, _arguments.tuples(inputs))
        extras = self._built.template.extras
        self._check_droppable(extras)
        if not _backend.flatten(extras):
            return result
        return result, *_backend.map_tensors(stacked, extras)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        has_more = self.return_sequences or self._built.template.extras
        return None if has_more else previous_mask

    @property
    def is_affine(self) -> bool:
        """Whether it is an affine map in evaluation, as its block is."""
        return _facts.is_affine(self.block) and not self.return_sequences

    def export_steps(self) -> list | None:
        """What the layers compute in evaluation, for `keras_bsnn.export`.

        `None` where more than the last tensor is returned.
        """
        if self.return_sequences or not self._built.template.maps_a_tensor:
            return None
        if self.is_affine:
            return [_steps.affine(self)]
        return [_steps.Layers(self.each_layer(), self.depth)]

    def get_config(self) -> Config:
        block = keras.saving.serialize_keras_object(self.block)
        block.pop("build_config", None)  # as it was before it was built
        every, rates = self.checkpoint_every, self.layer_drop
        return {
            **super().get_config(),
            "block": block,
            "depth": self.depth,
            "return_sequences": self.return_sequences,
            "checkpoint_every": [*every] if isinstance(every, tuple) else every,
            "per_layer": _given.to_config(self.per_layer),
            "layer_drop": [*rates] if isinstance(rates, tuple) else rates,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "block", "a Keras layer", deserialize))
