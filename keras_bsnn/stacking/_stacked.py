"""Models whose equal layers are loops, and back."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import keras
from typing_extensions import Self

from keras_bsnn._graph import Graph
from keras_bsnn._types import Config
from keras_bsnn.ops import _check
from keras_bsnn.stacking import _copies, _reasons
from keras_bsnn.stacking._functional import as_functional, specs
from keras_bsnn.stacking._loops import Loops


@keras.saving.register_keras_serializable(package="keras_bsnn")
class StackedModel(keras.Model):
    """A model in which equal layers are loops, as of `stack_layers`.

    Its configuration is that of the model without loops. Files of weights alone are
    those of that model, too: what `save_weights` writes, the model without loops can
    load, and `load_weights` reads what that has written.
    """

    def __init__(
        self,
        plain: keras.Model,
        least: int,
        inputs: Any = None,
        checkpoint_every: Any = None,
    ):
        options = _check.integer("least", least, 2), checkpoint_every
        loops = Loops(as_functional(plain, inputs), *options)
        super().__init__(**loops.model)
        self._hidden = _Hidden(plain, inputs, options, loops)

    def __getattr__(self, name: str) -> Any:
        """Of what is not there, whether the model without loops has it."""
        hidden = vars(self).get("_hidden")
        if hidden and hasattr(hidden.kind, name):
            raise AttributeError(
                f"{self.name!r} has loops, and no {name!r}, which is of "
                f"{hidden.kind.__name__}. keras_bsnn.stacking.unstack(model) has it, "
                "and the same weights."
            )
        if hasattr(super(), "__getattr__"):  # on PyTorch
            return super().__getattr__(name)
        return object.__getattribute__(self, name)  # raises

    @property
    def report(self) -> str:
        """What became a loop, and what did not and why, in words."""
        return "\n".join(_reasons.report(self._hidden.loops))

    def save_weights(self, filepath: Any, **kwargs: Any) -> None:
        unstack(self).save_weights(filepath, **kwargs)

    def load_weights(self, filepath: Any, **kwargs: Any) -> None:
        plain = unstack(self)
        plain.load_weights(filepath, **kwargs)
        copy_state(plain, self)

    def get_config(self) -> Config:
        least, every = self._hidden.options
        return {**self._hidden.config(), "least": least, "checkpoint_every": every}

    @classmethod
    def from_config(cls, config: Config, custom_objects: Any = None) -> Self:
        model, inputs = _plain(config, custom_objects)
        return cls(model, config["least"], inputs, config["checkpoint_every"])


def _plain(config, custom_objects=None):
    """A model without loops, and what it is called with, if it has to be told."""
    model, inputs = (
        keras.saving.deserialize_keras_object(config[key], custom_objects)
        for key in ("model", "inputs")
    )
    if inputs is not None:
        model(specs(inputs))  # which builds it
    if not all(config["trainable"]):
        for layer, flag in zip(
            model._flatten_layers(), config["trainable"], strict=True
        ):
            layer.trainable = flag
    return model, inputs


class _Hidden:
    """What Keras must not track."""

    def __init__(self, plain, inputs, options, loops):
        self.inputs, self.options, self.loops = inputs, options, loops
        self.kind = type(plain)
        serialized = keras.saving.serialize_keras_object
        try:
            self._config: Any = {
                "model": serialized(plain),
                "inputs": serialized(specs(inputs)),
                # A model that is made anew may not know of single layers.
                "trainable": [layer.trainable for layer in plain._flatten_layers()],
            }
        except Exception as error:  # of any layer: it matters once it is needed
            self._config = error

    def config(self):
        if isinstance(self._config, Exception):
            raise ValueError(
                "The model that was stacked has no configuration, so that it can be "
                "neither saved nor made anew; see the error above."
            ) from self._config
        return copy.deepcopy(self._config)  # Keras empties what it reads


def stack_layers(
    model: keras.Model,
    least: int = 2,
    inputs: Any = None,
    checkpoint_every: int | Sequence[int] | str | None = None,
) -> StackedModel:
    """Returns a model of the same inputs, outputs and numbers, with loops over layers.

    Equal layers that follow one another, or equal groups of layers, become a
    `DepthStack`: the time to compile does not grow with their number. What is not part
    of a loop is shared with the model that is given.

    Args:
        model: a model, which may contain others: functional, sequential, or a subclass
            whose `call` only calls layers and functions of Keras.
        least: the least number of equal layers to be a loop, an integer of at least 2.
            Defaults to 2.
        inputs: what a subclass is called with: a `keras.Input`, or a list or dict of
            such. Defaults to `None`, for models that know it.
        checkpoint_every: as that of `layers.DepthStack`, for all loops: `"sqrt"` needs
            much less memory, and a third more time. Defaults to `None`.

    Returns:
        A `keras.Model` that is not compiled, with the weights of `model`. Its `report`
        says in words what became a loop, and what did not and why. `unstack` is the way
        back, and `copy_state` moves weights and the state of optimizers.

    Raises:
        ValueError: an argument is not of the kind above.

    Source: this package. Loops over layers are known from Haiku's `layer_stack` and
    flax's `scan`, of which both ask for another model.

    Example:

    >>> import keras, keras_bsnn
    >>> layers = [keras.layers.Dense(4, "tanh") for _ in range(48)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    >>> stacked = keras_bsnn.stacking.stack_layers(model)
    >>> len(model.weights), len(stacked.weights)
    (98, 4)
    >>> keras_bsnn.stacking.unstack(stacked).count_params()
    965
    """
    return StackedModel(model, least, inputs, checkpoint_every)


def unstack(model: StackedModel) -> keras.Model:
    """Returns a model without loops, as it was before `stack_layers`.

    It is made anew from its configuration, by its own class, with all its methods, such
    as `generate` of a language model, and has weights of its own, with the values of
    the loops.

    Args:
        model: a model that `stack_layers` returned, or that was loaded as such.

    Returns:
        A model of the class that was stacked, which is not compiled.

    Raises:
        ValueError: `model` is not such a model, or has no configuration.

    Example:

    >>> import keras, keras_bsnn
    >>> layers = [keras.layers.Dense(4) for _ in range(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> stacked = keras_bsnn.stacking.stack_layers(model)
    >>> [len(m.layers) for m in (stacked, keras_bsnn.stacking.unstack(stacked))]
    [2, 3]
    """
    if not isinstance(model, StackedModel):
        raise _check.refusal("model", "a model of stack_layers", model)
    plain, _ = _plain(model._hidden.config())
    copy_state(model, plain)
    return plain


def copy_state(source: keras.Model, target: keras.Model) -> None:
    """Copies weights, and what an optimizer keeps, between a model and its loops.

    Args:
        source: the model to copy from. Either it or `target` has loops: it was returned
            by `stack_layers` for a model like the other.
        target: the model to copy to. If both are compiled with an optimizer, of the
            same kind, then so is the optimizer's state: its moments of a layer are in
            the loop, along the axis of depth, as the layer's weights are.

    Raises:
        ValueError: not one of the models has loops, the other is not like the model
            that was stacked, or an optimizer keeps what is not of a weight's shape.

    Example: a model is stacked in the middle of its training.

    >>> import keras, keras_bsnn
    >>> layers = [keras.layers.Dense(4) for _ in range(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> model.compile(keras.optimizers.Adam(0.01), "mse")
    >>> x = keras.random.normal((8, 4))
    >>> loss = model.train_on_batch(x, x)
    >>> stacked = keras_bsnn.stacking.stack_layers(model)
    >>> stacked.compile(keras.optimizers.Adam(0.01), "mse")
    >>> keras_bsnn.stacking.copy_state(model, stacked)
    >>> int(stacked.optimizer.iterations)
    1
    """
    are_stacked = [isinstance(model, StackedModel) for model in (source, target)]
    if sum(are_stacked) != 1:
        expected = "one of `source` and `target` must be a model of stack_layers"
        raise ValueError(f"Just {expected}. Received: {source}, {target}")
    stacked, plain = (source, target) if are_stacked[0] else (target, source)
    pairs = _pairs(stacked, plain)
    if _has_state(source) and getattr(target, "optimizer", None):
        target.optimizer.build(target.trainable_variables)
        optimizers = stacked.optimizer, plain.optimizer
        pairs += _copies.of_optimizers(*optimizers, pairs)
    for pair in pairs:
        pair.copy(to_plain=are_stacked[0])


def _has_state(model):
    """Whether a model is compiled, and its optimizer has begun."""
    optimizer = getattr(model, "optimizer", None)
    return optimizer is not None and optimizer.built


def _pairs(stacked, plain):
    """The variables of a model with loops, each with those of a model without."""
    hidden = stacked._hidden
    functional = as_functional(plain, hidden.inputs)
    graph = Graph(functional, hidden.loops.graph.is_late)
    classes = [
        [type(call.operation) for call in graph.calls]
        for graph in (hidden.loops.graph, graph)
    ]
    if classes[0] != classes[1]:
        theirs, ours = next(
            pair for pair in itertools.zip_longest(*classes) if pair[0] is not pair[1]
        )
        raise ValueError(
            "`source` and `target` must be a model and what stack_layers made of one "
            f"like it. Received: {stacked.name!r}, and {plain.name!r}, which calls "
            f"{_name(ours)} where that calls {_name(theirs)}"
        )
    return [*_copies.pairs(hidden.loops, graph)]


def _name(kind):
    return "nothing" if kind is None else kind.__name__
