"""The config of each class of ours that can be saved, and what to plant there."""

import keras
from catalogue import MADE

LAMBDA = keras.saving.serialize_keras_object(lambda x: x)  # which would load
SYSTEM = {
    "module": "os",
    "class_name": "function",
    "config": "system",
    "registered_name": "system",
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
