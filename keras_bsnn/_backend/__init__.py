"""What the package must know about the Keras backend that runs.

Each backend has a module with the same names, chosen once, here. No other module of the
package asks which backend runs.
"""

import keras

from keras_bsnn._backend._gradients import (
    gradients,
    value_and_gradients,
    value_and_slope,
    vjp,
    with_gradient,
)
from keras_bsnn._backend._implementation import NAME, implementation
from keras_bsnn._backend._trees import (
    flatten,
    floats,
    is_float,
    map_tensors,
    pack_like,
)

assign_whole = implementation.assign_whole
compiled = implementation.compiled
draw_from_states = implementation.draw_from_states
dry_run = implementation.dry_run
eager = implementation.eager
exact_matmul = implementation.exact_matmul
float64 = implementation.float64
is_concrete = implementation.is_concrete
is_first_process = implementation.is_first_process
loop = implementation.loop
native_gradients = implementation.native_gradients
optimizer_class = implementation.optimizer_class
program = implementation.program
read = implementation.read
read_whole = implementation.read_whole
scratch = implementation.scratch
shards = implementation.shards
traced_once = implementation.traced_once
loop_in_python = implementation.loop_in_python


def at_least_float32(x):
    """`x` in float32, or as it is if wider; on JAX, Keras would narrow float64."""
    is_narrow = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return keras.ops.cast(x, "float32") if is_narrow else x


__all__ = [
    "NAME",
    "assign_whole",
    "at_least_float32",
    "compiled",
    "draw_from_states",
    "dry_run",
    "eager",
    "exact_matmul",
    "flatten",
    "float64",
    "floats",
    "gradients",
    "is_concrete",
    "is_first_process",
    "is_float",
    "loop",
    "loop_in_python",
    "map_tensors",
    "native_gradients",
    "optimizer_class",
    "pack_like",
    "program",
    "read",
    "read_whole",
    "scratch",
    "shards",
    "traced_once",
    "value_and_gradients",
    "value_and_slope",
    "vjp",
    "with_gradient",
]
