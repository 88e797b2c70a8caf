"""PyTorch. The functions are described in `_common` and in `_tensorflow`."""

import contextlib

import keras
import torch

from keras_bsnn._backend._common import (  # noqa: F401
    assign_whole,
    eager,
    float64,
    loop_in_python,
    native_gradients,
    program,
    read_whole,
    scratch,
    shards,
    traced_once,
)
from keras_bsnn._backend._trees import is_float, map_tensors

# Its compiler would take the loop apart, and compile each layer by itself for minutes.
loop = torch.compiler.disable(loop_in_python)


@contextlib.contextmanager
def exact_matmul():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def is_concrete(tensor):
    return not (isinstance(tensor, torch.Tensor) and tensor.is_meta)


def read(variable):
    is_variable = isinstance(variable, keras.Variable)
    tensor = keras.ops.convert_to_tensor(variable.value if is_variable else variable)
    # Keras assigns in place, which a gradient that is asked for later must not see, as
    # of a moving average or a seed. Only optimizers assign to what is trained.
    return tensor.clone() if is_variable and not tensor.requires_grad else tensor


def is_first_process():
    is_one = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not is_one or torch.distributed.get_rank() == 0


def optimizer_class(optimizer):
    found = type(optimizer)  # for some optimizers, Keras has a subclass for PyTorch
    is_of_keras = found.__module__.startswith("keras.")
    return getattr(keras.optimizers, found.__name__, found) if is_of_keras else found


def draw_from_states(generators):
    for generator in generators:
        if generator.get_config()["seed"] is None:
            generator._initial_seed = 0  # only whether there is one matters from now on


def compiled(function, jit_compile):
    if jit_compile:
        raise ValueError(
            "`jit_compile` must be False or 'auto' where XLA is not: the backend is "
            "'torch'. Received: jit_compile=True"
        )
    return torch.no_grad()(function)


def dry_run(function, *arguments):
    with torch.no_grad():
        function(*arguments)


def with_gradient(function, forward, backward):
    @torch.compiler.disable
    def differentiable(*tensors):
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            return _Differentiable.apply(forward, backward, *tensors)
        return function(*tensors)

    return differentiable


class _Differentiable(torch.autograd.Function):
    """`forward`, whose residuals are kept for `backward`."""

    @staticmethod
    def forward(ctx, forward, backward, *tensors):
        outputs, residuals = forward(*tensors)
        ctx.save_for_backward(*tensors, *residuals)
        ctx.count, ctx.are_floats = len(tensors), [*map(is_float, outputs)]
        ctx.recomputed, ctx.pull = forward, backward
        return outputs

    @staticmethod
    def backward(ctx, *gradients):
        tensors = ctx.saved_tensors[: ctx.count]
        residuals = ctx.saved_tensors[ctx.count :]
        if torch.is_grad_enabled():  # a second derivative: what do they depend on?
            _, residuals = ctx.recomputed(*tensors)
        pairs = zip(gradients, ctx.are_floats, strict=True)
        found = ctx.pull(residuals, [g if is_one else None for g, is_one in pairs])
        return None, None, *found


def vjp(function, *floats):
    with torch.enable_grad():
        inputs = [_entering(x) for x in floats]
        outputs, more = function(*inputs)
    if not torch.is_grad_enabled():
        more = map_tensors(torch.Tensor.detach, more)

    def pull(gradients):
        pairs = zip(outputs, gradients, strict=True)
        connected = [(y, g) for y, g in pairs if y.requires_grad]
        if not connected:
            return [torch.zeros_like(x) for x in floats]
        tensors, given = zip(*connected, strict=True)
        is_recorded = torch.is_grad_enabled()
        return torch.autograd.grad(
            tensors, inputs, given, create_graph=is_recorded, materialize_grads=True
        )

    return more, pull


def _entering(x):
    """A tensor of its own, so that `x` may occur twice among the arguments."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
