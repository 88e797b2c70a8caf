"""How a stack runs its loop, in a call and for those who watch it."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_bsnn import _backend
from keras_bsnn.depth import _arguments, _checkpoints, _given, _layer_drop, _options
from keras_bsnn.depth._tuned import TunedLayers


class LoopedLayers(TunedLayers):
    """The part of `DepthStack` that runs the loop over its layers."""

    return_sequences: bool
    checkpoint_every: Any
    layer_drop: Any
    seed_generator: keras.random.SeedGenerator

    def observe(
        self,
        inputs: Any,
        *context: Any,
        probes: Any,
        block: keras.Layer | None = None,
        tap: Callable = tuple,
        traced: dict | None = None,
        **kwargs: Any,
    ) -> tuple:
        """Calls the stack, and gives what passes between its layers, for diagnostics.

        It is the same loop as in `call`, with the same numbers, but for `layer_drop`:
        all layers run.

        Args:
            inputs: as in the call of the stack.
            probes: tensor of zeros like the outputs, of shape `(depth, batch, ...)`.
                The gradient with respect to it is that of the outputs.
            block: another layer with the variables of `block`, to be called in its
                place. Defaults to `None`.
            tap: callable without arguments that returns a structure of tensors. It is
                called once after each layer, while the loop is traced.
            traced: dict in which the loop is kept, once it is traced, for other calls
                with this `block` and `tap`. Defaults to `None`, to trace it anew.
            *context: as in the call of the stack.
            **kwargs: `per_layer`, `keywords`, `flags`, `training` and `mask`, as in the
                call of the stack.

        Returns:
            What `call` returns; the output of each layer, of shape
            `(depth, batch, ...)`; and what `tap` returned, with a leading axis of
            `depth`.
        """
        observed = _options.Observed(
            probes, block, tap, {} if traced is None else traced
        )
        tensors = inputs, context, kwargs.get("per_layer"), kwargs.get("keywords")
        masks = kwargs.get("mask"), None, None
        arguments = _arguments.Arguments.of(tensors, kwargs.get("flags"), masks)
        found = self._run(arguments, kwargs.get("training"), observed)
        outputs, others = found.outputs
        taps, updates = found.updates
        inner = found._replace(outputs=others, updates=updates)
        if self.return_sequences:
            inner = inner._replace(outputs=(outputs, others))
        return self._with_effects(inner), outputs, taps

    def every_output(self, inputs: Any, probes: Any, **kwargs: Any) -> tuple:
        """Returns the output of each layer, and what a tap returned.

        The arguments and the results are those of `observe`, in short.
        """
        return self.observe(inputs, probes=probes, **kwargs)[1:]

    def _run(self, arguments, training, observed=None):
        _given.joined(self.per_layer, arguments.per_layer)  # or it refuses
        sizes = _checkpoints.sizes_of(self.checkpoint_every, self.depth)
        runs = None
        if self.layer_drop is not None and training and observed is None:
            runs = _layer_drop.drawn(self.layer_drop, self.depth, self.seed_generator)
        options = _options.Options(self.return_sequences, sizes, observed, runs)
        return self._built.run(_arguments.converted(arguments, self), training, options)

    def _with_effects(self, found):
        """The result of a call, once losses are added and variables are changed."""
        result, outputs = found.carry, found.outputs
        if self.return_sequences:
            every, outputs = outputs
            result = _backend.map_tensors(lambda x: ops.moveaxis(x, 0, 1), every)
        losses, extras = outputs or ([], ())
        self._check_droppable(extras)
        for loss in losses:
            self.add_loss(ops.sum(loss))
        for i, value in (found.updates or {}).items():
            self._built.constants[i].assign(value)
        return (result, *extras) if _backend.flatten(extras) else result

    def _check_droppable(self, extras):
        if self.layer_drop is not None and _backend.flatten(extras):
            raise ValueError(
                "`layer_drop` must be `None` for a block that returns more than what "
                "enters the next layer: a layer that is skipped has nothing to return. "
                f"Received: layer_drop={self.layer_drop}, block={self.block!r}"
            )
