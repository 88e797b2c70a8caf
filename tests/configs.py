"""The config of each class of ours that can be saved, and what to plant there."""

import keras

from keras_bsnn import activations, constraints, initializers, layers, optimizers

LAMBDA = keras.saving.serialize_keras_object(lambda x: x)  # which would load
SYSTEM = {
    "module": "os",
    "class_name": "function",
    "config": "system",
    "registered_name": "system",
}


MADE = {
    "poincare": lambda: activations.GaussianPoincare("tanh"),
    "shaped": lambda: activations.DepthShaped("gelu", 10),
    "gained": lambda: activations.Gained("relu", 0.5),
    "orthogonal": lambda: constraints.Orthogonal(),
    "haar": lambda: initializers.HaarOrthogonal(seed=3),
    "decay": lambda: initializers.DepthDecay(),
    "dense": lambda: layers.OrthogonalDense(4, "gp_tanh"),
    "batch norm": lambda: layers.BatchNormDense(4, gain=initializers.DepthDecay()),
    "filter": lambda: layers.ROAFDense(4, 0.9),
    "cell": lambda: layers.ROAFCell(4, 0.9),
    "recurrent": lambda: layers.ROAF(4, 0.9),
    "stack": lambda: layers.DepthStack(layers.OrthogonalDense(4), 3),
    "stiefel": lambda: optimizers.Stiefel("sgd"),
    "muon": lambda: optimizers.StiefelMuon(0.1),
}
# What the classes of Keras take, and look at or not, is theirs.
OF_KERAS = {"name", "trainable", "dtype", "zero_output_for_mask"}
OF_KERAS |= {*keras.optimizers.SGD().get_config()} - {"momentum", "nesterov"}


def configs():
    for name, make in MADE.items():
        made = make()
        yield name, (type(made), made.get_config())


CONFIGS = dict(configs())
# The arguments that are ours.
OWN = {name: sorted({*config} - OF_KERAS) for name, (_, config) in CONFIGS.items()}
