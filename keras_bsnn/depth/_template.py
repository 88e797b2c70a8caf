"""The pattern of the layers of a stack: a block that holds no layer's weights."""

import contextlib
from typing import Any

import keras

from keras_bsnn import _backend, _parts
from keras_bsnn.depth import _arguments, _checks, _lora, _per_layer
from keras_bsnn.depth._masks import masked
from keras_bsnn.depth._training import called


class Template:
    """A built block, as a function of the values of its variables.

    Args:
        block: a Keras layer that is not built, or a model.
        specs: what it is called with, an `_arguments.Arguments` of `keras.KerasTensor`,
            or `None` if that is not known yet.
        is_kept: whether the block is built, and is the template as it is.
        adapters: as of `_lora.adapters`, those that the block is to have.

    Attributes:
        block: the layer, or a clone of a model that was built.
        weights, constants: lists of its variables, the trainable ones and the others.
        initializers: those of `weights` and `constants` for all layers, in this order.
        returned, extras: what the block returns: what enters the next layer, and a
            tuple of what comes after it.

    Raises:
        ValueError: the block has no weights, does not return what it takes, or has a
            weight without initializer.
    """

    def __init__(self, block, specs, is_kept=False, adapters=()):
        self.specs: Any = None
        self.returned: Any = None
        self.extras: tuple = ()
        with keras.StatelessScope():  # in which variables keep their initializers
            self.block = block if is_kept else _new(block)
            if specs is not None:
                self.learn(specs)
            _lora.adapt(self.block, adapters)
            _backend.draw_from_states(_parts.generators(self.block))
            variables = ordered(self.block)
            of_layers = map(_per_layer.initializer_of, variables)
            self.initializers = [] if is_kept else [*of_layers]
            _per_layer.leave_undrawn(variables)
        self._sort(variables)

    def _sort(self, variables):
        self.weights = [v for v in variables if v.trainable]
        self.constants = [v for v in variables if not v.trainable]

    def add_adapters(self, names, **kwargs):
        """Gives layers of the block adapters.

        Args:
            names: as of `_lora.chosen`.
            **kwargs: arguments of `enable_lora` of Keras.

        Returns:
            A list of pairs of the variables that are new, and their initializers for
            all layers.
        """
        known = {id(v) for v in self.block.variables}
        with keras.StatelessScope():
            for layer in _lora.chosen(self.block, names):
                layer.enable_lora(**kwargs)
            new = [v for v in self.block.variables if id(v) not in known]
            pairs = [(v, _per_layer.initializer_of(v)) for v in new]
            _per_layer.leave_undrawn(new)
        self._sort(ordered(self.block))
        return pairs

    def learn(self, specs):
        """Looks at what the block returns if it is called so, unless it did so before.

        Args:
            specs: as for the class.
        """
        if self.specs is None or _pattern(specs) != _pattern(self.specs):
            known, self.specs = self.specs, specs
            try:
                with keras.StatelessScope():
                    self.returned, self.extras = self.split(self._outputs())
            except Exception:
                self.specs = known  # the next such call is looked at again
                raise

    def _outputs(self):
        try:
            outputs = _arguments.tuples(_called(self.block, self.specs))
        except ValueError as error:
            if "stateless scope" not in str(error):
                raise
            raise ValueError(
                "The weights of `block` must be made by `add_weight` with an "
                f"initializer: one of {self.block.name!r} has a value from the start, "
                "which would be the same in every layer."
            ) from error
        if not self.block.variables:
            raise ValueError(
                f"`block` must have weights: {self.block.name!r} has none, so that "
                "all layers are the same."
            )
        if not self._returns_what_it_takes(outputs):
            raise ValueError(
                "`block` must return a tensor of the shape of its input, or a "
                "structure of such, alone or the first of a tuple. Received: "
                f"{self.block.name!r}, which maps {_shapes(self.specs.inputs)} to "
                f"{_shapes(outputs)}"
            )
        return outputs

    def _returns_what_it_takes(self, outputs):
        expected = _shapes(self.specs.inputs)
        is_first = isinstance(outputs, tuple) and len(outputs) > 1
        return _shapes(outputs) == expected or (
            is_first and _shapes(outputs[0]) == expected
        )

    @property
    def maps_a_tensor(self):
        """Whether a layer is called with one tensor and returns one."""
        inputs, *others, _ = self.specs
        is_one = isinstance(inputs, keras.KerasTensor)
        return is_one and not any(others) and not self.extras

    def check_inputs(self, inputs):
        """Raises `ValueError` for integers where the layers return floating point."""

        def check(spec, x):
            if _backend.is_float(spec) and not _backend.is_float(x):
                dtype = keras.backend.standardize_dtype(x.dtype)
                raise ValueError(
                    "`inputs` must be of floating point: cast and standardize them "
                    f"first. Received: dtype={dtype}"
                )

        keras.tree.map_structure(check, self.returned, inputs)

    def split(self, outputs):
        """The next carry, and a tuple of what the block returns besides."""
        is_one = _shapes(outputs, ndim=True) == _shapes(self.specs.inputs, ndim=True)
        if is_one or not isinstance(outputs, tuple):
            return outputs, ()
        return outputs[0], outputs[1:]

    def new(self, name):
        """Returns another layer like the block, built, with a name."""
        is_model = isinstance(self.block, keras.Model)  # it has no scope of its own
        # Paths must differ: Keras on PyTorch knows the weights of a model by them.
        with keras.name_scope(name) if is_model else contextlib.nullcontext():
            layer = clone(self.block, name)
            _called(layer, self.specs)
        _lora.adapt(layer, _lora.adapters(self.block))
        _backend.draw_from_states(_parts.generators(layer))
        return layer

    def name_of(self, variable):
        """The path of a variable inside the block, as a name."""
        before, _, path = variable.path.partition(f"/{self.block.name}/")
        return (path or before).replace("/", "_")

    def call(self, carry, layer, training, flags, block=None):
        """Calls the block with the values of one layer.

        Args:
            carry: structure of tensors.
            layer: a `Layer`. Its weights are a pair: the values of `weights`, and the
                arguments of this layer alone; so are its constants; it shares a pair of
                the context and the keywords; its fixed tensors are the masks of the
                carry and of these.
            training: as in the call of a layer.
            flags: dict of further arguments that are no tensors.
            block: another layer with the same variables, to be called in its place.

        Returns:
            What the block returns, a list of losses, and a dict from the indices of
            those constants that it has changed to their values.
        """
        block = block or self.block
        (values, arguments), (others, given) = layer.weights, layer.constants
        variables = [*self.weights, *self.constants]
        state = zip(variables, (*values, *others), strict=True)
        with keras.StatelessScope(state, collect_losses=True) as scope:
            before = dict(scope.state_mapping)
            inputs, context, keywords = map(masked, (carry, *layer.shared), layer.fixed)
            named = {**keywords, **arguments, **given, **flags}
            outputs = called(lambda x: block(x, *context, **named), inputs, training)
            outputs = _arguments.tuples(outputs)
        _check_owned(scope, before)
        updates = {
            i: scope.get_current_value(v)
            for i, v in enumerate(self.constants)
            if scope.get_current_value(v) is not before[id(v)]
        }
        return outputs, scope.losses, updates


def _new(block):
    """A block that is not built: itself, or a clone of a model."""
    if not (block.built and block.variables):
        return block
    if not isinstance(block, keras.Model):
        raise ValueError(
            f"`block` must not be shared: {block.name!r} is in another stack already. "
            "Make a new one for each."
        )
    _checks.check_initializers(block)
    return clone(block, block.name)


def _called(layer, specs):
    """What a layer returns if it is called with these arguments."""
    named = {**specs.keywords, **specs.per_layer, **specs.flags}
    return layer(specs.inputs, *specs.context, **named)


def _pattern(specs):
    """What calls must differ in, for a block to return something else."""
    return _shapes(specs.tensors(), ndim=True), str(specs.flags)


def ordered(layer):
    """The variables of a layer, trainable ones first."""
    return sorted(layer.variables, key=lambda variable: not variable.trainable)


def clone(layer, name):
    """A layer of the same configuration, with another name."""
    return type(layer).from_config({**layer.get_config(), "name": name})


def _shapes(tree, ndim=False):
    """The structure of shapes; of numbers of axes, which are known in any trace."""
    return keras.tree.map_structure(
        lambda x: str(len(x.shape) if ndim else tuple(x.shape)), tree
    )


def _check_owned(scope, known):
    if scope.state_mapping.keys() - known.keys():
        raise ValueError(
            "`block` must change no variable but its own: it changed one that a loop "
            "over depth cannot keep. Random operations need a `seed=` that is a "
            "keras.random.SeedGenerator of the layer."
        )
