"""Calls whose inner layers know whether they train."""

import keras


class _Call(keras.layers.Layer):
    """A function of tensors as a layer.

    Layers that it calls ask the layer around them whether they train. In the loop of a
    gradient none is around them, as Keras has returned from the call of the stack.
    """

    def __init__(self, function):
        super().__init__(autocast=False, name="call")
        self.function = function
        self.supports_masking = True

    def call(self, inputs, training=None):
        return self.function(inputs)

    def compute_mask(self, inputs, previous_mask):
        return None


def called(function, inputs, training):
    """The function of a structure of tensors, called in training or not."""
    return _Call(function)(inputs, training=training)
