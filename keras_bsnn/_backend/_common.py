"""What several backends do alike.

What the others do instead is described here, too; the rest, in that of TensorFlow.
"""

import contextlib

import keras

from keras_bsnn._backend._trees import flatten, pack_like


def float64():
    """A context in which Keras operations on float64 arrays stay in float64."""
    return contextlib.nullcontext()


def exact_matmul():
    """A context in which float32 products are not rounded to TF32 on a GPU.

    TensorFlow has no such context, only the process-wide switch
    `tf.config.experimental.enable_tensor_float_32_execution(False)`.
    """
    return contextlib.nullcontext()


def read(variable):
    is_variable = isinstance(variable, keras.Variable)
    return keras.ops.convert_to_tensor(variable.value if is_variable else variable)


def eager():
    return contextlib.nullcontext()


def scratch(variables):
    """A context for code of a loop that computes by assigning to variables.

    They have their old values after it: a function that JAX traces must have no
    effects, and PyTorch would overwrite what was read. On TensorFlow, they keep what
    was assigned last.
    """
    return keras.StatelessScope([(v, read(v)) for v in variables])


def shards(variable):
    """Number of devices that the first axis of a variable is divided among."""
    return 1


def is_first_process():
    """Whether it is this process that writes files, of those that train together."""
    return True


def read_whole(variable):
    """The value of a variable as a NumPy array, wherever its parts are."""
    return keras.ops.convert_to_numpy(variable)


def assign_whole(variable, value):
    """Sets a variable to a NumPy array, of which each device takes its part."""
    variable.assign(value)


def optimizer_class(optimizer):
    """The public class of Keras that an optimizer is of, or else its own."""
    return type(optimizer)


def draw_from_states(generators):
    """Has each `keras.random.SeedGenerator` draw from its state, which is a variable.

    On PyTorch, Keras takes the numbers of dropout without a seed from elsewhere: a
    gradient that calls a layer once more would see others.
    """


def traced_once(function):
    return function


def compiled(function, jit_compile):
    return function


def dry_run(function, *arguments):
    """Calls a function for what Python sees of it, such as the shapes of tensors.

    On JAX it does not compute, which would compile each operation. TensorFlow computes,
    which takes less time than a trace.
    """
    function(*arguments)


def program(function, *specs):
    """What a function does, as text, which is equal for equal functions.

    Args:
        function: a function of tensors that computes with these, and with constants.
        *specs: a structure of `keras.KerasTensor` of known shapes for each argument.

    Returns:
        A string, or `None` where no backend says what a function does.
    """
    return None


def loop_in_python(step, carry, count, reverse=False, like=(), unroll=1):
    """`loop` in Python: a compiler sees each turn, and the results of all together."""
    collected = [None] * count
    for i in reversed(range(count)) if reverse else range(count):
        carry, collected[i] = step(i, carry)
    columns = zip(*map(flatten, collected), strict=True)
    return carry, pack_like(collected[0], map(keras.ops.stack, columns))


def native_gradients():
    return contextlib.nullcontext()
