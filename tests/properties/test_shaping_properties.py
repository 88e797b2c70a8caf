"""Of what is predicted of models."""

import keras
import numpy as np
from draws import property_of, rarely
from hypothesis import given
from hypothesis import strategies as st
from simulated_kernels import errors

from keras_bsnn import shaping

WIDTH, PLACES = 512, (4, 4)
ACTIVATIONS = ("relu", "tanh", "gelu", "elu", "sigmoid", "softplus")


@keras.saving.register_keras_serializable(package="test_shaping_properties")
class Halved(keras.layers.Layer):
    def call(self, inputs):
        return 0.5 * inputs


@shaping.register_map(Halved)
def halved(layer, signal):
    return signal.pointwise(lambda x: 0.5 * x)


def linear(kernel_size=1):
    start = keras.initializers.Orthogonal(2**0.5)
    return keras.layers.Conv2D(
        WIDTH, kernel_size, padding="same", kernel_initializer=start
    )


def sum_of(x, activation):
    branch = linear()(keras.layers.Activation(activation)(linear()(x)))
    return keras.layers.Add()([x, branch])


def gate_of(x, activation):
    return keras.layers.Multiply()([linear()(x), keras.ops.sigmoid(linear()(x))])


BLOCKS = {
    "convolution": lambda x, f: keras.layers.Activation(f)(linear(3)(x)),
    "layer": lambda x, f: keras.layers.Activation(f)(linear()(x)),
    "sum": sum_of,
    "gate": gate_of,
    "both": lambda x, f: keras.layers.Concatenate()([x, keras.ops.relu(linear()(x))]),
    "normalized": lambda x, f: keras.layers.LayerNormalization()(linear()(x)),
    "pooled": lambda x, f: keras.layers.AveragePooling2D(2, 1, "same")(linear()(x)),
    "halved": lambda x, f: Halved()(linear()(x)),
}
graphs = st.lists(
    st.tuples(st.sampled_from(list(BLOCKS)), st.sampled_from(ACTIVATIONS)),
    min_size=1,
    max_size=4,
).filter(lambda graph: sum(block == "pooled" for block, _ in graph) <= 1)


@property_of(
    shaping.kernel_maps, shaping.register_map, shaping.Signal, shaping.KernelMap
)
@rarely
@given(graphs)
def test_any_graph_is_predicted(graph):
    """With one overlapping pooling at most: of three in a row on 4 x 4, 6 % are missed.

    There, what two places have in common does not depend on their displacement alone.
    """

    def make():
        x = inputs = keras.Input((*PLACES, WIDTH))
        for block, activation in graph:
            x = BLOCKS[block](x, activation)
        return keras.Model(inputs, linear()(x))

    found, error = errors(make, seeds=4)
    assert np.nanmax(np.abs(found) - 3 * error) < 0.03, (graph, found, error)
