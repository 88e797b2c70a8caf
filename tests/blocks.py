"""Layers of a user, to be stacked."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tests")
class Gate(keras.layers.Layer):
    """A user's own layer, with a loss and a state of its own."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1],), name="w", initializer="ones")
        self.calls = self.add_weight(
            shape=(), name="calls", initializer="zeros", trainable=False
        )

    def call(self, x):
        self.calls.assign(self.calls + 1)
        self.add_loss(0.1 * ops.mean(ops.square(x * self.w)))
        return x + ops.tanh(self.w * x)


@keras.saving.register_keras_serializable("tests")
class Attention(keras.layers.Layer):
    def __init__(self, dropout=0.2, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization()
        self.attention = keras.layers.MultiHeadAttention(2, 3, dropout=dropout)
        self.dropout = dropout
        self.supports_masking = True

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.attention.build(input_shape, input_shape)

    def call(self, x, training=None, mask=None):
        h = self.norm(x)
        mask = None if mask is None else mask[:, None, :]
        return x + self.attention(h, h, attention_mask=mask, training=training)

    def get_config(self):
        return {**super().get_config(), "dropout": self.dropout}
