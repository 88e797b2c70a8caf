"""JAX. The functions are described in `_common` and in `_tensorflow`."""

import re

import jax
import keras
import numpy

from keras_bsnn._backend._common import (  # noqa: F401
    draw_from_states,
    eager,
    loop_in_python,
    native_gradients,
    optimizer_class,
    read,
    scratch,
)
from keras_bsnn._backend._trees import map_tensors

try:
    from jax import enable_x64
except ImportError:  # before JAX 0.8
    from jax.experimental import enable_x64  # type: ignore


def float64():
    return enable_x64(True)


def exact_matmul():
    return jax.default_matmul_precision("highest")


def is_concrete(tensor):
    return not isinstance(tensor, jax.core.Tracer)


def shards(variable):
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    layout = distribution.get_variable_layout(variable)
    mesh = layout.device_mesh
    return dict(zip(mesh.axis_names, mesh.shape, strict=True)).get(layout.axes[0], 1)


def is_first_process():
    return jax.process_index() == 0


def read_whole(variable):
    value = variable.value
    if not (value.is_fully_addressable or value.is_fully_replicated):
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(value, tiled=True)
    return keras.ops.convert_to_numpy(variable)


def assign_whole(variable, value):
    sharding = variable.value.sharding
    if len(sharding.device_set) > 1:  # `assign` would first have all on one
        value = jax.make_array_from_callback(value.shape, sharding, value.__getitem__)
    variable.assign(value)


def traced_once(function):
    return jax.jit(function)


def compiled(function, jit_compile):
    return jax.jit(function) if jit_compile else function


def dry_run(function, *arguments):
    jax.eval_shape(function, *arguments)


def program(function, *specs):
    specs = map_tensors(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), specs)
    found = jax.make_jaxpr(function)(*specs)
    constants = [numpy.asarray(x).tobytes() for x in found.consts]
    return re.sub(" at 0x[0-9a-f]+", "", str(found.jaxpr)) + str(constants)


def loop(step, carry, count, reverse=False, like=(), unroll=1):
    if isinstance(count, int) and count == 1:
        return loop_in_python(step, carry, count)

    def written(carry, i):
        carry, outputs = step(i, carry)
        dtypes.append(jax.tree.map(lambda x: x.dtype, outputs))
        return carry, jax.tree.map(_as_written, outputs)

    dtypes: list = []
    indices = jax.numpy.arange(count)
    on_gpu = jax.default_backend() == "gpu"
    last, outputs = jax.lax.scan(
        written, carry, indices, reverse=reverse, unroll=unroll if on_gpu else 1
    )
    return last, jax.tree.map(lambda x, dtype: x.astype(dtype), outputs, dtypes[0])


def _as_written(x):
    is_converted = x.dtype == "bfloat16" and jax.default_backend() == "cpu"
    return x.astype("float32") if is_converted else x


def with_gradient(function, forward, backward):
    def pull(residuals, gradients):
        return tuple(backward(residuals, [_gradient(g) for g in gradients]))

    differentiable = jax.custom_vjp(function)
    differentiable.defvjp(forward, pull)
    return differentiable


def _gradient(gradient):
    """`None` for that of an integer, which has a dtype of JAX's own, or its own."""
    is_float = jax.numpy.issubdtype(gradient.dtype, jax.numpy.floating)
    return gradient if is_float else None


def vjp(function, *floats):
    _, pull, more = jax.vjp(function, *floats, has_aux=True)
    return more, pull
