"""What tests make: layers of a user, blocks of a stack, and one of each class."""

import keras
from keras import ops

from keras_bsnn import activations, constraints, initializers, layers, optimizers


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


# Of a number of units, which they keep.
BLOCKS = {
    "orthogonal dense": lambda units: layers.OrthogonalDense(units, "gp_tanh"),
    "tangent gradient": lambda units: layers.OrthogonalDense(
        units,
        "gp_gelu",
        kernel_constraint=constraints.Orthogonal(tolerance=1e-3),
        tangent_gradient=True,
    ),
    "batch norm dense": lambda units: layers.BatchNormDense(
        units, "gp_tanh", shrinkage=0.5
    ),
    "roaf dense": lambda units: layers.ROAFDense(units, 0.9, filter="rotations"),
    "shared filter": lambda units: layers.ROAFDense(units, 0.9, shared_filter=True),
    "dense": lambda units: keras.layers.Dense(units, "tanh"),
    "dense with losses": lambda units: keras.layers.Dense(
        units,
        "softmax",
        kernel_regularizer="l2",
        kernel_constraint=keras.constraints.MaxNorm(1.0, axis=0),
        activity_regularizer="l1",
    ),
    "batch normalization": lambda units: keras.Sequential(
        [keras.layers.BatchNormalization(momentum=0.9), keras.layers.Dense(units)]
    ),
    "layer normalization": lambda units: keras.Sequential(
        [keras.layers.LayerNormalization(), keras.layers.Dense(units, "relu")]
    ),
    "dropout": lambda units: keras.Sequential(
        [keras.layers.Dense(units), keras.layers.Dropout(0.3)]
    ),
    "attention": lambda units: Attention(dropout=0.0),
    "attention with dropout": lambda units: Attention(),
    "own layer": lambda units: Gate(),
    "model": lambda units: keras.Sequential(
        [
            keras.Input((units,)),
            keras.layers.Dense(3, "relu"),
            keras.layers.Dense(units),
        ]
    ),
}
# Of each class that can be saved.
MADE = {
    "poincare": lambda: activations.GaussianPoincare("tanh"),
    "shaped": lambda: activations.DepthShaped("gelu", 10),
    "gained": lambda: activations.Gained("relu", 0.5),
    "orthogonal": lambda: constraints.Orthogonal(),
    "haar": lambda: initializers.HaarOrthogonal(seed=3),
    "delta": lambda: initializers.DeltaOrthogonal(seed=3),
    "decay": lambda: initializers.DepthDecay(),
    "dense": lambda: layers.OrthogonalDense(4, "gp_tanh"),
    "conv": lambda: layers.OrthogonalConv2D(4, activation="gp_tanh"),
    "sequence conv": lambda: layers.OrthogonalConv1D(4, 5, groups=2),
    "transposed conv": lambda: layers.OrthogonalConv2DTranspose(4, 4, 2),
    "places": lambda: layers.PerLocationNormalization(),
    "batch norm conv": lambda: layers.BatchNormConv2D(4, activation="gp_tanh"),
    "filter conv": lambda: layers.ROAFConv2D(4, alpha=0.9),
    "batch norm": lambda: layers.BatchNormDense(4, gain=initializers.DepthDecay()),
    "filter": lambda: layers.ROAFDense(4, 0.9),
    "cell": lambda: layers.ROAFCell(4, 0.9),
    "recurrent": lambda: layers.ROAF(4, 0.9),
    "stack": lambda: layers.DepthStack(layers.OrthogonalDense(4), 3),
    "stiefel": lambda: optimizers.Stiefel("sgd"),
    "muon": lambda: optimizers.StiefelMuon(0.1),
}
