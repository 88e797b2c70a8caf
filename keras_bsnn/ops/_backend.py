"""What the package must know of the Keras backend that runs: nothing outside asks."""

import contextlib
import contextvars
import functools

import keras


def float64():
    """A context in which Keras operations on float64 arrays stay in float64."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


def at_least_float32(x):
    """`x` in float32, or as it is if it is wider; on JAX Keras would narrow float64."""
    narrow = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return keras.ops.cast(x, "float32") if narrow else x


def exact_matmul():
    """A context in which float32 products are not rounded to TF32 on a GPU.

    TensorFlow has no such context, only the process-wide switch
    `tf.config.experimental.enable_tensor_float_32_execution(False)`.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()


def is_concrete(tensor):
    """Whether the values of `tensor` can be read now (not while tracing)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.is_symbolic_tensor(tensor)
    if keras.backend.backend() == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    return True


def read(variable):
    """The values of a variable (or tensor) at this point of the program, not copied."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(value)
    return keras.ops.convert_to_tensor(value)


def eager():
    """A context in which variables of TensorFlow can be read, also while it traces."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.init_scope()
    return contextlib.nullcontext()


@contextlib.contextmanager
def scratch(variables):
    """A context for code of a loop that computes by assigning to variables.

    On JAX, a traced function must have no effects: the variables have their old values
    after it. On TensorFlow, they keep what was assigned last.
    """
    if keras.backend.backend() == "jax":
        with keras.StatelessScope([(v, read(v)) for v in variables]):
            yield
    else:
        yield


def shards(variable):
    """Number of devices that the first axis of a variable is divided among."""
    distribution = keras.distribution.distribution()
    if distribution is None or keras.backend.backend() != "jax":
        return 1
    layout = distribution.get_variable_layout(variable)
    mesh = layout.device_mesh
    return dict(zip(mesh.axis_names, mesh.shape, strict=True)).get(layout.axes[0], 1)


def traced_once(function):
    """Has a function of tensors traced once for each shape, not at each use.

    The layers of a deep model then share one graph of it, which saves minutes.
    """

    @functools.cache
    def traced():
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.function(function, autograph=False)
        if keras.backend.backend() == "jax":
            import jax

            return jax.jit(function)
        return function

    return lambda *tensors: traced()(*tensors)


def loop(step, carry, count, dtypes, reverse=False):
    """`for i in range(count): carry, outputs = step(i, carry)`, compiled once.

    Args:
        step: callable of an integer tensor and the carry (a tensor or a tuple); it
            returns the next carry and a sequence of tensors.
        carry: what the first step receives.
        count: number of steps.
        dtypes: of the outputs of a step.
        reverse: whether `i` falls instead.

    Returns:
        The last carry, and a list of the outputs, stacked along a first axis by `i`.
    """
    if isinstance(count, int) and count == 1:
        carry, outputs = step(0, carry)
        return carry, [x[None] for x in outputs]
    if keras.backend.backend() == "jax":
        import jax

        carry, outputs = jax.lax.scan(
            lambda carry, i: step(i, carry),
            carry,
            jax.numpy.arange(count),
            reverse=reverse,
        )
        return carry, list(outputs)
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_loop(step, carry, count, dtypes, reverse)
    collected = [None] * count
    for i in reversed(range(count)) if reverse else range(count):
        carry, collected[i] = step(i, carry)
    return carry, [keras.ops.stack(outputs) for outputs in zip(*collected, strict=True)]


def _tensorflow_loop(step, carry, count, dtypes, reverse):
    import tensorflow as tf

    def body(turn, carry, arrays):
        i = count - 1 - turn if reverse else turn
        carry, outputs = step(i, carry)
        written = (a.write(i, x) for a, x in zip(arrays, outputs, strict=True))
        return turn + 1, carry, tuple(written)

    arrays = tuple(tf.TensorArray(dtype, count) for dtype in dtypes)
    _, carry, arrays = tf.while_loop(
        lambda turn, *_: turn < count,
        body,
        (tf.constant(0), carry, arrays),
        maximum_iterations=count,  # XLA must know it
    )
    return carry, [array.stack() for array in arrays]


_is_native = contextvars.ContextVar("is_native", default=False)


@contextlib.contextmanager
def native_gradients():
    """A context in which `with_gradient` leaves TensorFlow to differentiate.

    It then does so twice, too, but not with XLA, and keeps more.
    """
    token = _is_native.set(True)
    try:
        yield
    finally:
        _is_native.reset(token)


def with_gradient(function, forward, backward):
    """A function of tensors whose gradient is given.

    Args:
        function: callable of tensors, returns a tuple of tensors.
        forward: the same, but returns `(outputs, residuals)`.
        backward: callable of the residuals and the gradients of the outputs, returns
            the gradients of the arguments in a tuple; `None` stands for zero.

    Returns:
        A callable like `function`. On JAX it can be differentiated again; on TensorFlow
        that raises `NotImplementedError`. On other backends it is `function`, and the
        backend differentiates it.
    """
    if keras.backend.backend() == "jax":
        import jax

        differentiable = jax.custom_vjp(function)
        differentiable.defvjp(forward, backward)
        return differentiable
    if keras.backend.backend() == "tensorflow" and not _is_native.get():
        import tensorflow as tf

        @tf.custom_gradient
        def differentiable(*arguments):
            outputs, residuals = forward(*arguments)
            return outputs, lambda *gradients: _differentiated_once(
                backward, residuals, gradients
            )

        return differentiable
    return function


def _differentiated_once(backward, residuals, gradients):
    """`backward(residuals, gradients)`, with an error where it is differentiated."""
    import tensorflow as tf

    def refuse(*_):
        raise NotImplementedError(
            "A second derivative through a loop over depth is not available on the "
            "TensorFlow backend. Use the JAX backend, or a keras.Sequential of "
            "`stack.layer_at(i)`."
        )

    @tf.custom_gradient
    def once(*tensors):
        found.extend(backward(residuals, gradients))
        return [x for x in found if x is not None], refuse

    found = []  # with None, which a function of tensors must not return
    results = iter(once(*(g for g in gradients if g is not None)))
    return tuple(x if x is None else next(results) for x in found)


def vjp(function, *arguments):
    """`function(*arguments)`, and its vector-Jacobian product.

    Args:
        function: callable of tensors, returning a tuple of tensors.
        arguments: tensors of floating point.

    Returns:
        The outputs, and a callable that maps their gradients (a tuple) to the tuple of
        gradients of the arguments.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.vjp(function, *arguments)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs = function(*arguments)
        return outputs, lambda gradients: tape.gradient(
            outputs, arguments, gradients, unconnected_gradients="zero"
        )
    raise ValueError(
        "Gradients need the TensorFlow or the JAX backend. "
        f"This is {keras.backend.backend()!r}."
    )


def dense(gradient):
    """A gradient as one tensor: that of an embedding is sparse on TensorFlow."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)  # adds up what an index has repeatedly
    return gradient


def abstract(function, *specifications):
    """Traces `function` with tensors that have a shape and a dtype but no values."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.function(function, autograph=False).get_concrete_function(
            *(tf.TensorSpec(s.shape, s.dtype) for s in specifications)
        )
    elif keras.backend.backend() == "jax":
        import jax

        jax.eval_shape(
            function, *(jax.ShapeDtypeStruct(s.shape, s.dtype) for s in specifications)
        )
    else:
        function(*(keras.ops.zeros(s.shape, s.dtype) for s in specifications))


def gradients(function, arguments):
    """Gradients of a scalar `function(arguments)` with respect to each argument.

    Args:
        function: callable of one list of tensors, returning a scalar tensor.
        arguments: list of tensors.

    Returns:
        List of tensors, one gradient for each argument.
    """
    return gradients_and_more(lambda tensors: (function(tensors), ()), arguments)[2]


def gradients_and_more(function, arguments):
    """A scalar, and its gradients with respect to each argument.

    Args:
        function: callable of one list of tensors, returning a scalar tensor and
            something more: a structure of tensors.
        arguments: list of tensors.

    Returns:
        The scalar, what the function returned with it, and a list of gradients.
    """
    if keras.backend.backend() == "jax":
        import jax

        differentiated = jax.value_and_grad(function, has_aux=True)
        (value, more), found = differentiated(arguments)
        return value, more, found
    more = []

    def scalar(*tensors):
        value, others = function([*tensors])
        more.append(others)
        return (value,)

    (value,), pull = vjp(scalar, *arguments)
    return value, more[0], [*pull((keras.ops.ones_like(value),))]


def compiled(function, jit_compile):
    """`function`, compiled by XLA if asked to.

    Args:
        function: callable of tensors, returning a structure of tensors.
        jit_compile: whether to.
    """
    if not jit_compile:
        return function
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False, jit_compile=True)
