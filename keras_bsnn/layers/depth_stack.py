"""A stack of equal layers as one layer: depth is an axis of its weights."""

import functools
import inspect
import math
import weakref
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_bsnn import _backend
from keras_bsnn._public import public
from keras_bsnn.layers import _per_layer, _saturation
from keras_bsnn.ops import _check, depth_loop

TEMPLATES = weakref.WeakSet()
IRRELEVANT = {"name", "seed", "build_config", "shared_object_id"}


@public
class DepthStack(keras.layers.Layer):
    """`depth` layers like `block`, one after the other, each with its own weights.

    A weight of the block of shape `shape` is here one weight of `(depth, *shape)`, and
    the layers are one loop: the time to compile does not grow with depth. The gradient
    keeps what entered each layer and nothing else.

    Args:
        block: a Keras layer, or model, whose output has the shape of its input. It is
            the pattern of all layers, and in no other stack. A layer must be new, not
            built; a model is taken without its weights.
            Any layer will do whose weights come from `add_weight`, and whose `call`
            takes one tensor (and `training`, `mask`).
        depth: number of layers, an integer of at least 1.
        return_sequence: whether to return the output of every layer.
        checkpoint_every: `k`, a divisor of `depth`, to keep only what enters every k-th
            layer, and compute the rest again for the gradient: for a third more time,
            memory falls to that of `depth / k + k` layers. `None` to keep all.

    Input shape: `(batch, ...)`, as the block takes it. Output shape: the same, or
    `(batch, depth, ...)` with `return_sequence`.

    What the block does to a weight is done to each layer: initializers (with seeds of
    their own, derived from the block's), constraints, regularizers, moving statistics,
    random numbers of layers such as `Dropout`, losses. Masks go to every layer.

    Raises:
        ValueError: an argument is not of the kind above, or the block has no weights,
            changes the shape, has a variable of an unknown initializer, or changes a
            variable that is not its own.
        NotImplementedError: a second derivative is asked for on TensorFlow.

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
        self, block, depth, return_sequence=False, checkpoint_every=None, **kwargs
    ):
        _check_block(block)
        _check_depth(depth, checkpoint_every)
        _check.boolean("return_sequence", return_sequence)
        kwargs.setdefault("dtype", block.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.depth = depth
        self.return_sequence = return_sequence
        self.checkpoint_every = checkpoint_every
        self.supports_masking = block.supports_masking
        self._template = _Template(block)

    @property
    def block(self):
        """The pattern of the layers; its own weights are not those of any layer."""
        return self._template.block

    def build(self, input_shape):
        template = self._template
        template.build(input_shape)
        template.stacks = tuple(
            self._add_stack(variable, initializer)
            for variable, initializer in template.initializers()
        )

    def _add_stack(self, variable, initializer):
        constraint, regularizer = variable.constraint, variable.regularizer
        is_float = keras.backend.is_float_dtype(variable.dtype)
        aggregation = "mean" if is_float else "only_first_replica"
        if variable.trainable or variable.aggregation != "none":
            aggregation = variable.aggregation
        return self.add_weight(
            name=self._template.name_of(variable),
            shape=(self.depth, *variable.shape),
            initializer=_per_layer.Initialized(initializer),
            dtype=variable.dtype,
            trainable=variable.trainable,
            autocast=False,  # the block casts what it uses
            constraint=constraint and _per_layer.Constrained(constraint),
            regularizer=regularizer and _per_layer.Regularized(regularizer),
            aggregation=aggregation,
        )

    def call(self, inputs, training=None, mask=None):
        masks = [] if mask is None else [mask]
        x, others = self._run(inputs, masks, training)
        return self._with_effects(self._template.effects[training], x, others)

    def _run(self, inputs, masks, training, probes=()):
        """The loop over depth, traced once if it is called outside of a graph."""

        def run(x, *tensors):
            tensors = iter(tensors)
            masks_, probes_ = ([next(tensors) for _ in x] for x in (masks, probes))
            return self._loop(x, masks_, training, probes_, list(tensors))

        x = ops.cast(inputs, self.compute_dtype)
        if _backend.is_concrete(x):
            key = (training, len(masks), len(probes))
            run = self._template.traced.setdefault(key, _backend.traced_once(run))
        return run(x, *masks, *probes, *map(_backend.read, self._template.stacks))

    def _loop(self, x, masks, training, probes, stacks):
        weights, constants = self._template.split(stacks)
        function = self._template.function(training, masks)
        effects = self._template.find_effects(function, x, training)
        return depth_loop.run(
            self._probed_rule(function) if probes else self._rule(function, effects),
            x,
            depth_loop.Tensors(
                (*probes, *weights), tuple(constants), shards=self._shards()
            ),
            self.depth,
            self.checkpoint_every,
            keep=training is not False or bool(probes),
        )

    def _rule(self, function, effects):
        """The block's own rule where it has one that does all that is asked for."""
        if not (self.return_sequence or effects.loss or effects.updated):
            own = self._template.own_rule()
            if own is not None:
                return own
        loss_dtype = keras.backend.result_type(self.compute_dtype, "float32")
        float_outputs = [loss_dtype] * effects.loss
        float_outputs += [self.compute_dtype] * self.return_sequence
        variables = self._template.constants
        dtypes = float_outputs + [variables[i].dtype for i in effects.updated]

        def layer(carry, weights, constants):
            y, losses, updates = function(carry, weights, constants)
            outputs = [_total(losses, loss_dtype)] if effects.loss else []
            outputs += [y] if self.return_sequence else []
            return y, (*outputs, *(updates[i] for i in effects.updated))

        return depth_loop.Rule(layer, dtypes, len(float_outputs))

    def _shards(self):
        """Among how many devices a `keras.distribution` divides the layers."""
        found = max(map(_backend.shards, self._template.stacks))
        return math.gcd(found, self.depth)

    def _probed_rule(self, function):
        """Adds the first weight to the output, and gives what `every_output` does."""

        def layer(carry, weights, constants):
            probe, *weights = weights
            (y, *_), share = _saturation.observed_call(
                self.block, function, carry, weights, constants
            )
            y = y + probe
            return y, (y, share)

        dtypes = [self.compute_dtype, "float32"]
        return depth_loop.Rule(layer, dtypes, differentiable=1)

    def _with_effects(self, effects, x, others):
        others = list(others)
        if effects.loss:
            self.add_loss(ops.sum(others.pop(0)))
        if self.return_sequence:
            x = ops.moveaxis(others.pop(0), 0, 1)
        _, constants = self._template.split(self._template.stacks)
        for i, value in zip(effects.updated, others, strict=True):
            constants[i].assign(value)
        return ops.cast(x, self.compute_dtype)

    def every_output(self, inputs, probes, training=False, mask=None):
        """The output of each layer, for diagnostics.

        Args:
            inputs, training, mask: as of the layer.
            probes: tensor of shape `(depth, batch, ...)`, added to these outputs: the
                gradient with respect to it is that of the outputs.

        Returns:
            Tensor of shape `(depth, batch, ...)`, and the share of units in each layer
            whose activation has a slope of nearly zero, `(depth,)`.
        """
        masks = [] if mask is None else [mask]
        probes = [ops.cast(probes, self.compute_dtype)]
        return self._run(inputs, masks, training, probes)[1]

    def layer_at(self, index):
        """A standalone copy of one layer, with its weights.

        Args:
            index: of the layer; -1 is the last.

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
        layer = self._template.new(f"{self.block.name}_{index % self.depth}")
        for variable, stack in zip(_ordered(layer), self._template.stacks, strict=True):
            variable.assign(_backend.read(stack)[index])
        return layer

    def each_layer(self):
        """Yields the layers in turn: one standalone layer, with the weights of each.

        What changes these weights changes the stack, once the last layer was seen.

        Raises:
            ValueError: the stack is not built.
        """
        self._check_built()
        layer = self._template.traveller
        stacks = [np.array(ops.convert_to_numpy(s)) for s in self._template.stacks]
        for i in range(self.depth):
            for variable, stack in zip(_ordered(layer), stacks, strict=True):
                variable.assign(stack[i])
            yield layer
            for variable, stack in zip(_ordered(layer), stacks, strict=True):
                stack[i] = ops.convert_to_numpy(variable)
        for variable, stack in zip(self._template.stacks, stacks, strict=True):
            variable.assign(stack)

    def _check_built(self):
        if not self.built:
            raise ValueError(f"The stack {self.name!r} is not built: call it first.")

    @classmethod
    def from_layers(cls, layers, **kwargs):
        """A stack with the weights of built layers that are equal but for these.

        Args:
            layers: sequence of layers of one class and configuration.
            kwargs: further arguments of the stack.

        Raises:
            ValueError: the layers are none, not built, or not equal.
        """
        layers = list(layers)
        _check_layers(layers)
        first = layers[0]
        stack = cls(_clone(first, first.name), len(layers), **kwargs)
        stack.build(first.get_build_config()["input_shape"])
        stack.built = True
        values = zip(*(_ordered(layer) for layer in layers), strict=True)
        for variable, of_layers in zip(stack._template.stacks, values, strict=True):
            variable.assign(np.stack([ops.convert_to_numpy(v) for v in of_layers]))
        return stack

    def compute_output_shape(self, input_shape):
        if self.return_sequence:
            return (input_shape[0], self.depth, *input_shape[1:])
        return tuple(input_shape)

    def compute_mask(self, inputs, previous_mask):
        return None if self.return_sequence else previous_mask

    def get_config(self):
        return {
            **super().get_config(),
            "block": _serialized(self.block),
            "depth": self.depth,
            "return_sequence": self.return_sequence,
            "checkpoint_every": self.checkpoint_every,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        return cls(**_check.deserialized(config, "block", "a Keras layer", deserialize))


class Effects(NamedTuple):
    """What a call of the block does besides returning its output.

    Attributes:
        loss: whether it adds a loss.
        updated: indices of the variables, among the constants, that it assigns.
    """

    loss: bool
    updated: list


class _Template:
    """The block, out of the sight of Keras, which would track its weights.

    Attributes:
        block: the layer, or a clone of a model that had weights.
        weights, constants: its variables, trainable and not.
        stacks: the variables of the stack, in the same order.
        effects: the `Effects` of a call, by the value of `training`.
        traced: the loops that were traced.
    """

    def __init__(self, block):
        TEMPLATES.add(block)
        self.block = block
        self.effects = {}
        self.traced = {}

    def build(self, input_shape):
        self.input = keras.KerasTensor(input_shape, self.block.compute_dtype)
        with _per_layer.recorded_initializers() as self._recorded:
            if self.block.built:
                self.block = _clone(self.block, self.block.name)
            outputs = self.block(self.input)
        if not self.block.variables:
            raise ValueError(
                f"`block` must have weights: {self.block.name!r} has none, so that "
                "all layers are the same."
            )
        if getattr(outputs, "shape", None) != self.input.shape:
            raise ValueError(
                "`block` must return a tensor of the shape of its input. "
                f"Received: {self.block.name!r}, which maps {self.input.shape} "
                f"to {keras.tree.map_structure(lambda x: x.shape, outputs)}"
            )
        self.weights, self.constants = _divided(self.block)

    @functools.cached_property
    def traveller(self):
        """The one layer that takes the weights of each in turn."""
        return self.new(f"{self.block.name}_each")

    def new(self, name):
        """Another layer like the block, built."""
        layer = _clone(self.block, name)
        layer(self.input)
        return layer

    def initializers(self):
        """Pairs of a variable of the block and the initializer of one layer's."""
        for variable in (*self.weights, *self.constants):
            yield variable, self._recorded.get(id(variable)) or _initial(variable)

    def name_of(self, variable):
        """The path of a variable inside the block, as a name."""
        _, _, path = variable.path.rpartition(f"{self.block.name}/")
        return path.replace("/", "_")

    def split(self, stacks):
        """`stacks` as those of the weights, and those of the constants."""
        return stacks[: len(self.weights)], stacks[len(self.weights) :]

    def own_rule(self):
        """The rule that the block offers, if it is one for what the block does."""
        if not hasattr(self.block, "depth_rule"):
            return None
        # A subclass that has its own `call` must have its own rule.
        owners = [_owner(self.block, name) for name in ("depth_rule", "call")]
        rule = self.block.depth_rule() if issubclass(*owners) else None
        # In a layer that is frozen, what the rule takes for weights are constants.
        return rule if rule and rule.constants == len(self.constants) else None

    def function(self, training, masks):
        """The block as a function of its input and of the values of its variables."""
        takes_training = "training" in inspect.signature(self.block.call).parameters
        kwargs = {"training": training} if takes_training else {}
        variables = [*self.weights, *self.constants]
        masked = _Masked(dtype=self.block.compute_dtype, name="masked")

        def function(x, weights, constants):
            values = zip(variables, (*weights, *constants), strict=True)
            x = masked(x, mask=masks[0]) if masks else x
            with keras.StatelessScope(values, collect_losses=True) as scope:
                y = self.block(x, **kwargs)
            _check_owned(scope, variables)
            updates = [scope.get_current_value(v) for v in self.constants]
            return y, scope.losses, updates

        return function

    def find_effects(self, function, x, training):
        """The `Effects` of a function that `self.function` returned."""

        def observe(x, *values):
            weights, constants = self.split(values)
            y, losses, updates = function(x, weights, constants)
            pairs = enumerate(zip(updates, constants, strict=True))
            updated = [i for i, (new, old) in pairs if new is not old]
            self.effects[training] = Effects(bool(losses), updated)
            return y

        _backend.output_specs(observe, x, *self.weights, *self.constants)
        return self.effects[training]


class _Masked(keras.layers.Layer):
    """The identity; Keras attaches the mask that it is called with to the result."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return inputs


def _owner(layer, name):
    """The class that defines an attribute of a layer."""
    return next(c for c in type(layer).__mro__ if name in vars(c))


def _divided(layer):
    """The variables of a layer: trainable ones, and others."""
    weights = [v for v in layer.variables if v.trainable]
    return weights, [v for v in layer.variables if not v.trainable]


def _ordered(layer):
    weights, constants = _divided(layer)
    return weights + constants


def _clone(layer, name):
    config = {**layer.get_config(), "name": name}
    return type(layer).from_config(config)


def _serialized(block):
    """The block as it was before it was built."""
    config = keras.saving.serialize_keras_object(block)
    config.pop("build_config", None)
    return config


def _initial(variable):
    """The initializer of a variable that was not made by `add_weight`."""
    if variable.name == "seed_generator_state":
        seed = ops.convert_to_numpy(variable).tolist()
        return _SeedStates(seed)
    if variable.trainable:
        raise ValueError(
            f"The variable {variable.path!r} of `block` must be made by `add_weight` "
            "with an initializer: it would have the same value in every layer."
        )
    return keras.initializers.Constant(ops.convert_to_numpy(variable))


class _SeedStates:
    """An initializer of the states of random number generators."""

    batched = True

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        return _per_layer.seed_states(self.seed, shape[0])


def _total(losses, dtype):
    return sum(ops.sum(ops.cast(loss, dtype)) for loss in losses)


def _check_owned(scope, variables):
    if set(scope.state_mapping) - {id(v) for v in variables}:
        raise ValueError(
            "`block` must change no variable but its own: it changed one that a loop "
            "over depth cannot keep. Random operations need a `seed=` that is a "
            "keras.random.SeedGenerator of the layer."
        )


def _check_block(block):
    if not isinstance(block, keras.layers.Layer):
        raise _check.refusal("block", "a Keras layer", block)
    if block in TEMPLATES:
        raise ValueError(
            f"`block` must not be shared: {block.name!r} is in another stack already. "
            "Make a new one for each."
        )
    # A model of Keras has its weights from the start, also one that is loaded.
    if block.built and block.variables and not isinstance(block, keras.Model):
        raise ValueError(
            f"`block` must be new: {block.name!r} has weights already, which would be "
            "ignored. DepthStack.from_layers takes built layers."
        )


def _check_depth(depth, checkpoint_every):
    _check.integer("depth", depth)
    if checkpoint_every is None:
        return
    _check.integer("checkpoint_every", checkpoint_every, 1, depth)
    if depth % checkpoint_every:
        raise ValueError(
            "`checkpoint_every` must be a divisor of depth. "
            f"Received: checkpoint_every={checkpoint_every}, depth={depth}"
        )


def _check_layers(layers):
    if not layers or not all(layer.built for layer in layers):
        raise ValueError(
            f"`layers` must be built layers, at least one. Received: {layers}"
        )
    expected = _pattern(layers[0])
    for layer in layers[1:]:
        if _pattern(layer) != expected:
            raise ValueError(
                "`layers` must be equal but for the values of their weights. "
                f"Received: {layers[0].name!r} and {layer.name!r}"
            )


def _pattern(layer):
    shapes = [(tuple(v.shape), v.dtype) for v in _ordered(layer)]
    return type(layer), _without_names(layer.get_config()), shapes


def _without_names(config):
    if isinstance(config, dict):
        return {
            key: _without_names(value)
            for key, value in config.items()
            if key not in IRRELEVANT
        }
    if isinstance(config, (list, tuple)):
        return [_without_names(value) for value in config]
    return config
