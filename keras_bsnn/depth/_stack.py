"""A stack of equal layers as one layer: depth is an axis of its weights."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend, _facts, _parts, _steps, manifolds
from keras_bsnn._public import public
from keras_bsnn.depth import _arguments, _checkpoints, _loop, _options, _per_layer
from keras_bsnn.depth._rule import Layer
from keras_bsnn.depth._template import BlockRule, Template, clone, ordered
from keras_bsnn.ops import _check


@public
class DepthStack(keras.layers.Layer):
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
            memory falls to that of `depth / k + k` layers. Defaults to `None`, to keep
            all.
        **kwargs: arguments of `keras.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: tensor of shape `(batch, ...)`, or a tuple or dict of such: what enters
            the first layer.
        *context: further tensors, or structures of such, that every layer is called
            with after its input: an attention mask, a conditioning vector, the outputs
            of an encoder. Those of floating point have gradients.
        per_layer: dict from names of arguments of the block to tensors, or structures
            of such, with a leading axis of `depth`: each layer is called with its own
            slices. Those of floating point have gradients. Defaults to `None`.
        training: boolean, as in the call of every Keras layer.
        mask: boolean mask of the inputs, `(batch, ...)`, for every layer.

    Returns:
        The output of the last layer, of the shape of `inputs`. With `return_sequences`,
        those of all layers, of shape `(batch, depth, ...)`. If the block returns a pair
        of that and something more, a pair: the second is what all layers return there,
        with a leading axis of `depth`.

    Raises:
        ValueError: an argument is not of the kind above, or the block has no weights,
            changes the shape, has a weight without initializer, or changes a variable
            that is not its own.

    Source: this package. A loop over layers is known from Haiku's `layer_stack`.

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
        checkpoint_every: int | None = None,
        **kwargs: Any,
    ):
        _arguments.check_block(block)
        _arguments.check_depth(depth, checkpoint_every)
        _check.boolean("return_sequences", return_sequences)
        kwargs.setdefault("dtype", block.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.depth = int(depth)
        self.return_sequences = bool(return_sequences)
        self.checkpoint_every = checkpoint_every and int(checkpoint_every)
        self.supports_masking = block.supports_masking
        self._hidden = _Hidden(block)

    @property
    def block(self) -> keras.Layer:
        """The pattern of the layers; its own weights are not those of any layer."""
        return self._built.template.block if self._built else self._hidden.block

    @property
    def _built(self):
        return self._hidden.built

    @property
    def trainable(self) -> bool:
        """Whether the layers are trained; if not, they keep their statistics, too."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool):
        keras.layers.Layer.trainable.fset(self, value)
        if self._built:
            self.block.trainable = value

    def __call__(self, inputs, *context, per_layer=None, **kwargs):
        if not self.built:  # `build` is told the shape of the inputs alone
            self._hidden.specs = _arguments.specs((inputs, context, per_layer or {}))
        return super().__call__(inputs, *context, per_layer=per_layer, **kwargs)

    def build(self, input_shape):
        inputs, context, per_layer = self._hidden.specs or (
            keras.KerasTensor(input_shape, self.compute_dtype),
            (),
            {},
        )
        _arguments.check_per_layer(per_layer, self.depth)
        inputs = _arguments.specs(inputs, self.compute_dtype)
        slices = _arguments.sliced(per_layer)
        template = Template(self.block, inputs, context, slices)
        self._hidden.specs = inputs, context, per_layer
        self._hidden.built = _Built(template, self._add_stacks(template))
        if not self.trainable:
            template.block.trainable = False

    def _add_stacks(self, template):
        variables = (*template.weights, *template.constants)
        pairs = zip(variables, template.initializers, strict=True)
        return [
            self._add_stack(template.name_of(variable), variable, initializer)
            for variable, initializer in pairs
        ]

    def _add_stack(self, name, variable, initializer):
        constraint, regularizer = variable.constraint, variable.regularizer
        is_float = keras.backend.is_float_dtype(variable.dtype)
        aggregation = "mean" if is_float else "only_first_replica"
        if variable.trainable or variable.aggregation != "none":
            aggregation = variable.aggregation
        stack = self.add_weight(
            name=name,
            shape=(self.depth, *variable.shape),
            initializer=_per_layer.Initialized(initializer),
            dtype=variable.dtype,
            trainable=variable.trainable,
            autocast=False,  # the block casts what it uses
            constraint=constraint and _per_layer.Constrained(constraint),
            regularizer=regularizer and _per_layer.Regularized(regularizer),
            aggregation=aggregation,
        )
        stack.stacked_axes = 1 + manifolds.stacked_axes(variable)
        return stack

    def get_build_config(self):
        return {"call": _arguments.to_config(self._hidden.specs)}

    def build_from_config(self, config):
        self._hidden.specs = _arguments.from_config(config["call"])
        self.build(None)

    def call(
        self,
        inputs,
        *context,
        per_layer=None,
        training=None,
        mask=None,
        inputs_mask=None,
        context_mask=None,
    ):
        masks = (inputs_mask if mask is None else mask), context_mask
        found = self._run(inputs, context, per_layer or {}, masks, training)
        return self._with_effects(found)

    def observe(
        self,
        inputs: Any,
        *context: Any,
        probes: Any,
        per_layer: dict | None = None,
        training: bool | None = None,
        mask: Any = None,
        block: keras.Layer | None = None,
        tap: Callable | None = None,
    ) -> tuple:
        """Calls the stack, and gives what passes between its layers, for diagnostics.

        It is the same loop as in `call`, with the same numbers.

        Args:
            inputs, context, per_layer, training, mask: as in the call of the stack.
            probes: tensor of zeros like the outputs, of shape `(depth, batch, ...)`.
                The gradient with respect to it is that of the outputs.
            block: another layer with the variables of `block`, to be called in its
                place. Defaults to `None`.
            tap: callable without arguments that returns a structure of tensors. It is
                called once after each layer, while the loop is traced. Defaults to
                `None`.

        Returns:
            What `call` returns; the output of each layer, of shape
            `(depth, batch, ...)`; and what `tap` returned, with a leading axis of
            `depth`.
        """
        masks = mask, None
        options = _Observed(probes, block, tap or tuple)
        found = self._run(inputs, context, per_layer or {}, masks, training, options)
        outputs, others = found.outputs
        taps, updates = found.updates
        inner = found._replace(outputs=others, updates=updates)
        if self.return_sequences:
            inner = inner._replace(outputs=(outputs, others))
        return self._with_effects(inner), outputs, taps

    def _run(self, inputs, context, per_layer, masks, training, observed=None):
        """The loop over depth, traced once if it is called outside of a graph."""
        built = self._built
        _arguments.check_per_layer(per_layer, self.depth)
        inputs = _arguments.cast(inputs, self.compute_dtype)
        built.template.check_inputs(inputs)
        rule, layers = built.rule_and_layers(training, observed and observed.block)
        if isinstance(rule, BlockRule):
            context, per_layer = _arguments.tensors((context, per_layer))
            layers = Layer(
                (layers.weights, per_layer), layers.constants, context, masks
            )
        rule, layers = self._with_options(rule, layers, observed)
        keep = training is not False or observed is not None
        loop = _loop.Loop(self.depth, keep, math.gcd(built.shards(), self.depth))

        def run(inputs, *groups):
            layers = Layer(*groups)
            return _checkpoints.run(rule, inputs, layers, loop, self.checkpoint_every)

        if _backend.is_concrete(_backend.flatten(inputs)[0]):
            run = _backend.traced_once(run)
            if not observed:
                run = built.traced.setdefault((training, self.block.trainable), run)
        return run(inputs, *layers[:-1])

    def _with_options(self, rule, layers, observed):
        if observed:
            rule = _options.Tapped(rule, observed.tap)
        if self.return_sequences or observed:
            rule = _options.EveryOutput(rule)
        if observed:
            rule = _options.Probed(rule)
            layers = layers._replace(weights=(observed.probes, layers.weights))
        return rule, layers

    def _with_effects(self, found):
        """The result of a call, once losses are added and variables are changed."""
        result, outputs = found.carry, found.outputs
        if self.return_sequences:
            every, outputs = outputs
            result = _backend.map_tensors(lambda x: ops.moveaxis(x, 0, 1), every)
        losses, extras = outputs or ([], None)
        for loss in losses:
            self.add_loss(ops.sum(loss))
        for i, value in (found.updates or {}).items():
            self._built.constants[i].assign(value)
        return (result, extras) if _backend.flatten(extras) else result

    def layer_at(self, index: int) -> keras.Layer:
        """Returns a standalone copy of one layer, with its weights.

        Args:
            index: integer, the position of the layer; -1 is the last.

        Raises:
            ValueError: the stack is not built.
            IndexError: there is no such layer.
        """
        self._check_built()
        if not -self.depth <= index < self.depth:
            raise IndexError(
                f"`index` must be in [{-self.depth}, {self.depth}). "
                f"Received: index={index}"
            )
        layer = self._built.template.new(f"{self.block.name}_{index % self.depth}")
        for variable, stack in zip(ordered(layer), self._built.stacks, strict=True):
            variable.assign(_backend.read(stack)[index])
        return layer

    def each_layer(self) -> Iterator[keras.Layer]:
        """Yields the layers in turn: one standalone layer, with the weights of each.

        What changes these weights changes the stack, once the last layer was seen.

        Raises:
            ValueError: the stack is not built.
        """
        self._check_built()
        layer = self._built.traveller
        stacks = [np.array(ops.convert_to_numpy(s)) for s in self._built.stacks]
        for i in range(self.depth):
            for variable, stack in zip(ordered(layer), stacks, strict=True):
                variable.assign(stack[i])
            yield layer
            for variable, stack in zip(ordered(layer), stacks, strict=True):
                stack[i] = ops.convert_to_numpy(variable)
        for variable, stack in zip(self._built.stacks, stacks, strict=True):
            variable.assign(stack)

    def _check_built(self):
        if not self.built:
            raise ValueError(f"The stack {self.name!r} is not built: call it first.")

    def parts(self) -> Iterator[_parts.Part]:
        """Yields the parts of the block, with the weights of all layers.

        Raises:
            ValueError: the stack is not built.
        """
        self._check_built()
        stack_of = self._built.stack_of()
        for part in _parts.parts(self.block):
            weights = [stack_of[id(weight)] for weight in part.weights]
            yield part._replace(weights=weights).within(self.name, self.depth)

    @property
    def is_affine(self) -> bool:
        """Whether it is an affine map in evaluation, as its block is."""
        return _facts.is_affine(self.block) and not self.return_sequences

    def export_steps(self) -> list | None:
        """What the layers compute in evaluation, for `keras_bsnn.export`.

        `None` where the output of every layer is returned.
        """
        if self.return_sequences:
            return None
        if self.is_affine:
            return [_steps.affine(self)]
        return [_steps.Layers(self.each_layer(), self.depth)]

    @classmethod
    def from_layers(cls, layers: Iterable[keras.Layer], **kwargs: Any) -> "DepthStack":
        """Makes a stack with the weights of layers that are equal but for these.

        Args:
            layers: built layers of one class and configuration.
            **kwargs: further arguments of the stack.

        Raises:
            ValueError: the layers are none, not built, or not equal.
        """
        layers = list(layers)
        _arguments.check_layers(layers, ordered)
        first = layers[0]
        stack = cls(clone(first, first.name), len(layers), **kwargs)
        stack.build(first.get_build_config()["input_shape"])
        values = zip(*map(ordered, layers), strict=True)
        for variable, of_layers in zip(stack._built.stacks, values, strict=True):
            variable.assign(np.stack([ops.convert_to_numpy(v) for v in of_layers]))
        return stack

    def compute_output_shape(self, input_shape):
        if self.return_sequences:
            return (input_shape[0], self.depth, *input_shape[1:])
        return tuple(input_shape)

    def compute_output_spec(self, inputs, *context, **kwargs):
        def spec(x):
            dtype = self.compute_dtype if _backend.is_float(x) else x.dtype
            return keras.KerasTensor(self.compute_output_shape(x.shape), dtype)

        result = _backend.map_tensors(spec, inputs)
        extras = self._built.template.extras
        if not _backend.flatten(extras):
            return result
        return result, _backend.map_tensors(
            lambda x: keras.KerasTensor((self.depth, *x.shape), x.dtype), extras
        )

    def compute_mask(self, inputs, previous_mask):
        is_plain = not self.return_sequences and self._built.template.extras is None
        return previous_mask if is_plain else None

    def get_config(self):
        block = keras.saving.serialize_keras_object(self.block)
        block.pop("build_config", None)  # as it was before it was built
        return {
            **super().get_config(),
            "block": block,
            "depth": self.depth,
            "return_sequences": self.return_sequences,
            "checkpoint_every": self.checkpoint_every,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "block", "a Keras layer", deserialize))


class _Observed(NamedTuple):
    """What is asked for by `DepthStack.observe`."""

    probes: Any
    block: keras.Layer | None
    tap: Callable


class _Hidden:
    """What Keras must not track: it would take the block's weights for the stack's.

    Args:
        block: the block that the stack is given.

    Attributes:
        specs: what the stack is called with: inputs, context and tensors per layer.
        built: a `_Built`, once the stack is built.
    """

    def __init__(self, block):
        self.block = block
        self.specs = None
        self.built = None


class _Built:
    """What a stack has once it is built.

    Args:
        template: a `Template`.
        stacks: the variables of the stack, in the order of the template's.

    Attributes:
        constants: those of `stacks` that stand for the template's constants.
        traced: loops that were traced, to be called outside of a graph.
    """

    def __init__(self, template, stacks):
        self.template = template
        self.stacks = stacks
        self.weights = stacks[: len(template.weights)]
        self.constants = stacks[len(template.weights) :]
        self.traced = {}

    @functools.cached_property
    def traveller(self):
        """The one layer that takes the weights of each in turn."""
        return self.template.new(f"{self.template.block.name}_each")

    def shards(self):
        """Among how many devices a `keras.distribution` divides the layers."""
        return max(map(_backend.shards, self.stacks))

    def rule_and_layers(self, training, block=None):
        """The rule of a layer, and the tensors of all of them.

        It is the block's own rule where it has one for what its `call` does.
        """
        block = block or self.template.block
        rule = _own_rule(block)
        if rule is not None:
            return self._with_regularizer(rule, block), self._bound(block)
        weights, constants = (
            [_backend.read(v) for v in group]
            for group in (self.weights, self.constants)
        )
        return BlockRule(self.template, training, block), Layer(weights, constants)

    def _with_regularizer(self, rule, block):
        if block.activity_regularizer is None:
            return rule
        return _options.Regularized(rule, block.activity_regularizer)

    def _bound(self, block):
        """The block's tensors, with the stack of a variable in its place."""
        stack_of = self.stack_of()
        return _backend.map_tensors(
            lambda x: _backend.read(stack_of.get(id(x), x)), block.depth_tensors()
        )

    def stack_of(self):
        """A dict from the id of a variable of the block to that of the stack."""
        variables = (*self.template.weights, *self.template.constants)
        return dict(zip(map(id, variables), self.stacks, strict=True))


def _own_rule(block):
    """The rule that a block offers; of a subclass with another `call`, its own."""
    if not hasattr(block, "depth_rule"):
        return None
    owners = [_owner(block, name) for name in ("depth_rule", "call")]
    return block.depth_rule() if issubclass(*owners) else None


def _owner(layer, name):
    """The class that defines an attribute of a layer."""
    return next(c for c in type(layer).__mro__ if name in vars(c))
