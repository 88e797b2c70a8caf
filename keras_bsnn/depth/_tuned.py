"""What may be done to the weights of a stack once it is built."""

from collections.abc import Sequence
from typing import Any

from keras_bsnn.depth._opened import OpenedLayers


class TunedLayers(OpenedLayers):
    """The part of `DepthStack` for those who adapt a model that is trained."""

    def enable_lora(
        self,
        rank: int,
        target_layer_names: Sequence[str] | None = None,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Freezes kernels, and adds a product of two matrices to each of each layer.

        It does to all layers of the stack what `keras.layers.Dense.enable_lora` does to
        one: the matrices are weights of shapes `(depth, n, rank)` and
        `(depth, rank, m)`. Other weights are trained as before; a model must be
        compiled again. Layers that have adapters already keep them if they are stacked
        by `from_layers`.

        Args:
            rank: integer, the rank of the product.
            target_layer_names: names of layers of the block. Defaults to `None`, for
                all that Keras has this method for: dense ones, convolutions and
                embeddings.
            lora_alpha: number; the product is scaled by `lora_alpha / rank`. Defaults
                to `None`, for `rank`.
            a_initializer: initializer of the first matrix, or its name.
            b_initializer: that of the second one; zeros change nothing at first.

        Raises:
            ValueError: the stack is not built, its block has no such layer, one has an
                adapter already, or one has a constraint.

        Source: "LoRA: Low-rank adaptation of large language models" (Hu et al., 2021,
        arXiv:2106.09685).

        Example:

        >>> import keras, keras_bsnn
        >>> stack = keras_bsnn.layers.DepthStack(keras.layers.Dense(8), depth=3)
        >>> stack.build((None, 8))
        >>> stack.enable_lora(2)
        >>> [(w.name, tuple(w.shape)) for w in stack.trainable_weights]
        [('bias', (3, 8)), ('lora_kernel_a', (3, 8, 2)), ('lora_kernel_b', (3, 2, 8))]
        """
        self._check_built()
        template, stack_of = self._built.template, self._built.stack_of()
        given = {"a_initializer": a_initializer, "b_initializer": b_initializer}
        if lora_alpha is not None:
            given["lora_alpha"] = lora_alpha
        new = template.add_adapters(target_layer_names, rank=rank, **given)
        self._tracker.unlock()
        for variable, initializer in new:
            name = template.name_of(variable)
            stack_of[id(variable)] = self._add_stack(name, variable, initializer)
        variables = [*template.weights, *template.constants]
        stacks = [stack_of[id(variable)] for variable in variables]
        for variable, stack in zip(variables, stacks, strict=True):
            stack.trainable = variable.trainable
            self._untrack_variable(stack)
            self._track_variable(stack)  # in the order in which a stack makes them
        self._tracker.lock()
        self._hidden.built = self._made(template, stacks)

    def quantize(
        self, mode: Any = None, type_check: Any = True, config: Any = None
    ) -> None:
        """Refuses: quantize the layers before they are stacked, or a model without.

        A model that is quantized calls it, and has quantized the layers before it. On a
        CPU, XLA under TensorFlow fails at the int8 products of a stack of quantized
        layers: compile without.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"The stack {self.name!r} cannot be quantized, nor a model with it: make "
            "one without stacks first, by `keras_bsnn.export.to_keras(model)` or "
            "`keras_bsnn.stacking.unstack(model)`, or stack layers that are quantized "
            "already, by `DepthStack.from_layers(layers)`; `filters` of the model's "
            f"`quantize` leaves the stack as it is. Received: mode={mode!r}"
        )
