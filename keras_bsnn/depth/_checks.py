"""Checks of what a stack is given."""

import keras

from keras_bsnn.depth import _equality
from keras_bsnn.ops import _check


def check_block(block):
    if not isinstance(block, keras.layers.Layer):
        raise _check.refusal("block", "a Keras layer", block)
    # A model of Keras has its weights from the start, also one that is loaded.
    if block.built and block.variables and not isinstance(block, keras.Model):
        raise ValueError(
            f"`block` must be new: {block.name!r} has weights already, which would be "
            "ignored, or it is in another stack. DepthStack.from_layers takes built "
            "layers."
        )


def check_layers(layers):
    """Raises `ValueError` unless layers are built and equal but for their values."""
    are_built = all(isinstance(x, keras.layers.Layer) and x.built for x in layers)
    if not layers or not are_built:
        raise ValueError(
            f"`layers` must be built layers, at least one. Received: {layers}"
        )
    expected = _equality.fingerprint(layers[0])
    for layer in layers[1:]:
        found = _equality.fingerprint(layer)
        if found != expected:
            raise ValueError(
                "`layers` must be equal but for the values of their weights. "
                f"Received: {layers[0].name!r} and {layer.name!r}, which differ in "
                f"{_equality.difference(expected, found)}"
            )


def check_initializers(block):
    """Raises `ValueError` where a clone of a block would lose what is given to it."""
    layers = block.layers if isinstance(block, keras.Model) else [block]
    for layer in layers:
        if isinstance(layer, keras.Model):
            check_initializers(layer)
        for name, value in vars(layer).items():
            base = keras.initializers.Initializer
            if not isinstance(value, base) or not vars(value):
                continue
            if type(value).get_config is base.get_config:
                raise ValueError(
                    f"`{name}` of {layer.name!r} must have a `get_config`, by which a "
                    f"model that is stacked makes new weights. Received: {value!r}"
                )


def check_per_layer(per_layer, depth):
    for name, value in per_layer.items():
        for x in keras.tree.flatten(value):
            shape = tuple(getattr(x, "shape", ()))
            if not shape or shape[0] != depth:
                raise ValueError(
                    f"`per_layer[{name!r}]` must have a leading axis of depth={depth}. "
                    f"Received: shape={shape}"
                )
