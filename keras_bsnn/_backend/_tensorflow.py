"""TensorFlow."""

import contextlib
import contextvars
import functools
from typing import Any

import keras
import tensorflow as tf

from keras_bsnn._backend._common import (  # noqa: F401
    assign_whole,
    draw_from_states,
    dry_run,
    exact_matmul,
    float64,
    is_first_process,
    loop_in_python,
    optimizer_class,
    read_whole,
    shards,
)
from keras_bsnn._backend._trees import flatten, map_tensors, pack_like


def is_concrete(tensor):
    """Whether the values of `tensor` can be read now (not while tracing)."""
    return not tf.is_symbolic_tensor(tensor)


def read(variable):
    """The values of a variable (or tensor) at this point of the program, not copied."""
    is_variable = isinstance(variable, keras.Variable)
    return tf.convert_to_tensor(variable.value if is_variable else variable)


def eager():
    """A context in which variables can be read, also while TensorFlow traces."""
    return tf.init_scope()


def scratch(variables):
    return contextlib.nullcontext()


def traced_once(function):
    """Traces a function of tensors once for each shape, not at each use.

    The layers of a deep model then share one graph of it, which saves minutes.
    """

    @functools.cache
    def traced():  # not before its first use
        return tf.function(function, autograph=False)

    return lambda *tensors: traced()(*tensors)


def program(function, *specs):
    specs = map_tensors(lambda x: tf.TensorSpec(x.shape, x.dtype), specs)
    found = tf.function(function, autograph=False).get_concrete_function(*specs)
    constants = [x.numpy().tobytes() for x in found.captured_inputs]
    graph = found.graph.as_graph_def()
    functions = {f.signature.name: f for f in graph.library.function}
    return _text(graph.node, functions) + str(constants)


def _text(nodes, functions):
    """What nodes of a graph do, without the names of nodes and functions."""
    places = {node.name: f"#{i}" for i, node in enumerate(nodes)}

    def source(name):
        name, _, which = name.partition(":")
        return f"{places.get(name, name)}:{which}"

    def setting(value):
        if name := value.func.name:
            return _text(functions[name].node_def, functions)
        return str(value)

    lines = (
        [
            node.op,
            *map(source, node.input),
            *(f"{k}={setting(v)}" for k, v in sorted(node.attr.items()) if k[0] != "_"),
        ]
        for node in nodes
    )
    return str([*lines])


def compiled(function, jit_compile):
    """`function`, a callable of tensors, compiled by XLA if `jit_compile`."""
    if not jit_compile:
        return function
    return tf.function(function, autograph=False, jit_compile=True)


def loop(step, carry, count, reverse=False, like=(), unroll=1):
    """`for i in range(count): carry, outputs = step(i, carry)`, compiled once.

    Args:
        step: callable of an integer tensor and the carry, a structure of tensors; it
            returns the next carry and a structure of outputs.
        carry: what the first step receives.
        count: number of steps, an integer or a tensor.
        reverse: whether `i` falls instead.
        like: structure of tensors with the dtypes that the outputs are expected to
            have. If they have others, the step is traced twice.
        unroll: how many steps a turn of the loop takes on a GPU; under JAX only.

    Returns:
        The last carry, and the outputs, stacked along a first axis by `i`.
    """
    if isinstance(count, int) and count == 1:
        return loop_in_python(step, carry, count)

    def body(dtypes, turn, tensors, arrays):
        i = count - 1 - turn if reverse else turn
        following, outputs = step(i, pack_like(carry, tensors))
        structure.append(map_tensors(lambda _: True, outputs))
        outputs = flatten(outputs)
        if [x.dtype for x in outputs] != dtypes:
            raise _OtherDtypes([x.dtype for x in outputs])
        pairs = zip(arrays, outputs, strict=True)
        arrays = [array.write(i, tf.cast(x, array.dtype)) for array, x in pairs]
        return turn + 1, flatten(following), arrays

    def collected(dtypes):
        arrays = [tf.TensorArray(_as_written(dtype), count) for dtype in dtypes]
        _, tensors, arrays = tf.while_loop(
            lambda turn, *_: turn < count,
            functools.partial(body, dtypes),
            (tf.constant(0), flatten(carry), arrays),
            maximum_iterations=count,  # XLA must know it
        )
        pairs = zip(arrays, dtypes, strict=True)
        stacked = [tf.cast(array.stack(), dtype) for array, dtype in pairs]
        return pack_like(carry, tensors), pack_like(structure[-1], stacked)

    structure: list[Any] = []
    try:
        return collected([tf.as_dtype(x.dtype) for x in flatten(like)])
    except _OtherDtypes as found:
        return collected(found.dtypes)


class _OtherDtypes(Exception):
    """The outputs of a step have other dtypes than expected."""

    def __init__(self, dtypes):
        super().__init__()
        self.dtypes = dtypes


def _as_written(dtype):
    """The dtype in which a loop collects its outputs.

    On a CPU, XLA writes one bfloat16 into an array by converting all of the array: the
    cost of a loop would grow with the square of its length.
    """
    kinds = {device.device_type for device in tf.config.list_logical_devices()}
    return tf.float32 if dtype == tf.bfloat16 and kinds == {"CPU"} else dtype


_is_native = contextvars.ContextVar("is_native", default=False)


@contextlib.contextmanager
def native_gradients():
    """A context in which `with_gradient` leaves TensorFlow to differentiate.

    It keeps more, and is not for XLA.
    """
    token = _is_native.set(True)
    try:
        yield
    finally:
        _is_native.reset(token)


def with_gradient(function, forward, backward):
    """A function of tensors whose gradient is given; see the package's own."""
    if _is_native.get():
        return function

    @tf.custom_gradient
    def differentiable(*tensors):
        outputs, residuals = forward(*tensors)

        def pull(*gradients):
            pairs = zip(outputs, gradients, strict=True)
            return backward(residuals, [_gradient(*pair) for pair in pairs])

        return outputs, pull

    return differentiable


def _gradient(output, gradient):
    if not output.dtype.is_floating:
        return None
    return tf.zeros_like(output) if gradient is None else tf.convert_to_tensor(gradient)


def vjp(function, *floats):
    """The vector-Jacobian product of tensors of floating point.

    Args:
        function: callable of tensors that returns a tuple of tensors, and anything.
        floats: tensors.

    Returns:
        That anything, and a callable that maps the gradients of the tuple to those of
        the arguments, which are dense.
    """
    with tf.GradientTape() as tape:
        tape.watch(floats)
        outputs, more = function(*floats)

    def pull(gradients):
        found = tape.gradient(outputs, floats, gradients, unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in found]

    return more, pull
