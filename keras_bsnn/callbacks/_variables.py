"""Values of variables, also of those of which each process has but a part.

All processes must then ask for the same ones, in the same order.
"""

import keras


def is_of_first_process():
    """Whether it is this one that writes files, of those that train together."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0


def read(variable):
    """The whole value, as a numpy array."""
    if keras.backend.backend() == "jax":
        value = variable.value
        if not (value.is_fully_addressable or value.is_fully_replicated):
            from jax.experimental import multihost_utils

            return multihost_utils.process_allgather(value, tiled=True)
    return keras.ops.convert_to_numpy(variable)


def assign(variable, value):
    """Sets a variable to a numpy array, of which each device takes its part."""
    if keras.backend.backend() == "jax":
        sharding = variable.value.sharding
        if len(sharding.device_set) > 1:  # `assign` would first have all on one
            import jax

            value = jax.make_array_from_callback(
                value.shape, sharding, value.__getitem__
            )
    variable.assign(value)
