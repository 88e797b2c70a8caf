"""Steps each layer of a stack as an optimizer would step the layer alone."""

import contextlib
import math

import keras
from keras import ops

from keras_bsnn import _backend, manifolds

# They step each entry separately, so that a stack is like any other weight.
ELEMENTWISE = tuple(
    getattr(keras.optimizers, name)
    for name in (
        *("SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam"),
        *("Ftrl", "Lion", "ScheduleFreeAdamW"),
    )
    if hasattr(keras.optimizers, name)  # not all versions of Keras have each
)


def is_elementwise(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the steps of an optimizer are known to be the same in a stack.

    A subclass may look at shapes or norms, and is not known.
    """
    if type(optimizer) is keras.optimizers.LossScaleOptimizer:
        return is_elementwise(optimizer.inner_optimizer)
    return _backend.optimizer_class(optimizer) in ELEMENTWISE


class PerLayer(keras.optimizers.Optimizer):
    """Any optimizer, applied to each layer of a stack separately.

    A copy of the optimizer is built on a weight like that of one layer. One loop over
    the layers gives it the weight and the slots (momentum, ...) of each, and keeps the
    results. Clipping by value or by the global norm, weight decay, averages and
    accumulated gradients are done by this class.

    Args:
        optimizer: The optimizer, which keeps its learning rate and its iterations.

    Raises:
        ValueError: If the optimizer does more in a step than its `update_step`.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        _check(optimizer)
        super().__init__(
            learning_rate=lambda: optimizer.learning_rate,
            weight_decay=optimizer.weight_decay,
            clipvalue=optimizer.clipvalue,
            global_clipnorm=optimizer.global_clipnorm,
            use_ema=optimizer.use_ema,
            ema_momentum=optimizer.ema_momentum,
            ema_overwrite_frequency=optimizer.ema_overwrite_frequency,
            loss_scale_factor=optimizer.loss_scale_factor,
            gradient_accumulation_steps=optimizer.gradient_accumulation_steps,
            name=f"{optimizer.name}_per_layer",
        )
        self._optimizer = optimizer

    def build(self, var_list):
        if not self.built:
            # Slots start from values of other variables, also where TensorFlow traces.
            with _backend.eager():
                super().build(var_list)
                self._build_copies(var_list)

    def _build_copies(self, var_list):
        self._alone = _copy(self._optimizer)
        self._alone.build([v for v in var_list if not manifolds.stacked_axes(v)])
        self._stacks = tuple(
            _Stack(v, _copy(self._optimizer), self)
            if manifolds.stacked_axes(v)
            else None
            for v in var_list
        )

    @property
    def variables(self):
        others = self._alone.variables if self.built else []
        return [*self._variables, *others, *self._optimizer.variables]

    def apply(self, grads, trainable_variables=None):
        super().apply(grads, trainable_variables)
        _iteration(self._optimizer).assign_add(1)

    def update_step(self, gradient, variable, learning_rate):
        stack = self._stacks[self._get_variable_index(variable)]
        norm = self._optimizer.clipnorm
        if norm:
            gradient = _clipped(gradient, norm, stack.axes if stack else 0)
        if stack:
            stack.step(gradient, variable, learning_rate)
        else:
            _iteration(self._alone).assign(self.iterations)
            self._alone.update_step(gradient, variable, learning_rate)


class _Stack:
    """A stacked weight, its slots, and the optimizer that steps each layer of it.

    Args:
        variable: The weight, of shape `(*layers, *shape)`.
        optimizer: An optimizer that is not built; it gets one weight, of shape `shape`.
        owner: The optimizer that the stacked slots belong to.
    """

    def __init__(self, variable, optimizer, owner):
        self.axes = manifolds.stacked_axes(variable)
        self.layers = tuple(variable.shape[: self.axes])
        self.optimizer, self.owner = optimizer, owner
        self.weight = _weight_of_one_layer(variable, self.axes)
        known = len(optimizer.variables)
        optimizer.build([self.weight])
        self.slots = optimizer.variables[known:]
        self.stacked_slots = [self._stacked(slot) for slot in self.slots]

    def _stacked(self, slot):
        return self.owner.add_variable(
            shape=(*self.layers, *slot.shape),
            initializer=lambda shape, dtype: ops.copy(ops.broadcast_to(slot, shape)),
            dtype=slot.dtype,
            name=slot.name,
        )

    def step(self, gradient, variable, learning_rate):
        ones, stacks = [self.weight, *self.slots], [variable, *self.stacked_slots]
        gradients, *values = map(self._flat, (gradient, *stacks))
        rate, iterations = map(_backend.read, (learning_rate, self.owner.iterations))

        def layer(i, carry):
            with _backend.scratch([self.weight, *self.optimizer.variables]):
                _iteration(self.optimizer).assign(iterations)
                for one, value in zip(ones, values, strict=True):
                    one.assign(value[i])
                self.optimizer.update_step(gradients[i], self.weight, rate)
                return carry, [_backend.read(one) for one in ones]

        _, stepped = _backend.loop(layer, (), math.prod(self.layers), like=ones)
        for stack, value in zip(stacks, stepped, strict=True):
            self.owner.assign(stack, ops.reshape(value, stack.shape))

    def _flat(self, stack):
        """All layers along one axis."""
        value = _backend.read(stack)
        return ops.reshape(value, (-1, *value.shape[self.axes :]))


def _weight_of_one_layer(variable, axes):
    """A weight with the path of the stacked one, by which weights are excluded."""
    *scopes, name = variable.path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(
            "zeros", shape=variable.shape[axes:], dtype=variable.dtype, name=name
        )


def _copy(optimizer):
    """A copy without averages and accumulated gradients of its own."""
    config = optimizer.get_config()
    config |= {"use_ema": False, "gradient_accumulation_steps": None}
    return type(optimizer).from_config(config)


def _iteration(optimizer):
    return next(v for v in optimizer.variables if v.name == "iteration")


def _clipped(gradient, norm, axes):
    """The gradient of each layer, clipped by itself as `clipnorm` does."""
    gradient = _backend.read(gradient)
    inner = tuple(range(axes, len(gradient.shape)))
    squared = ops.sum(ops.square(gradient), axis=inner, keepdims=True)
    return gradient * (norm / ops.sqrt(ops.maximum(squared, norm**2)))


def _check(optimizer):
    """Raises `ValueError` for an optimizer that `PerLayer` would not do justice to."""
    name = type(optimizer).__name__
    if type(optimizer).apply is not keras.optimizers.Optimizer.apply:
        raise ValueError(
            f"{name} cannot step the layers of a DepthStack one by one, because it "
            "has an `apply` of its own. Wrap an optimizer that has none, or use "
            "StiefelMuon."
        )
    decay = optimizer.weight_decay
    if getattr(optimizer, "adam_weight_decay", decay) != decay:
        raise ValueError(
            "`adam_weight_decay` must be equal to `weight_decay` for the weights of a "
            f"DepthStack. Received: adam_weight_decay={optimizer.adam_weight_decay}, "
            f"weight_decay={decay}"
        )
