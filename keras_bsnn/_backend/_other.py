"""Any other backend, without gradients of our own and without compilation.

The functions are described in the module of TensorFlow.
"""

import contextlib

import keras

from keras_bsnn._backend._trees import flatten, map_tensors, pack_like


def float64():
    return contextlib.nullcontext()


def exact_matmul():
    return contextlib.nullcontext()


def is_concrete(tensor):
    return True


def read(variable):
    is_variable = isinstance(variable, keras.Variable)
    return keras.ops.convert_to_tensor(variable.value if is_variable else variable)


def eager():
    return contextlib.nullcontext()


def scratch(variables):
    return contextlib.nullcontext()


def shards(variable):
    return 1


def is_first_process():
    return True


def read_whole(variable):
    return keras.ops.convert_to_numpy(variable)


def assign_whole(variable, value):
    variable.assign(value)


def traced_once(function):
    return function


def compiled(function, jit_compile):
    return function


def output_specs(function, *arguments):
    def zeros(x):
        return keras.ops.zeros([n or 1 for n in x.shape], x.dtype)

    return function(*map_tensors(zeros, arguments))


def loop(step, carry, count, reverse=False, like=None):
    collected = [None] * count
    for i in reversed(range(count)) if reverse else range(count):
        carry, collected[i] = step(i, carry)
    columns = zip(*map(flatten, collected), strict=True)
    return carry, pack_like(collected[0], map(keras.ops.stack, columns))


def native_gradients():
    return contextlib.nullcontext()


def with_gradient(function, forward, backward):
    return function


def vjp(function, *floats):
    raise ValueError(
        "Gradients need the TensorFlow or the JAX backend. "
        f"This is {keras.backend.backend()!r}."
    )
