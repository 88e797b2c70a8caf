"""What the package must know of the Keras backend that runs: nothing outside asks."""

import contextlib
import functools

import keras


def float64():
    """A context in which Keras operations on float64 arrays stay in float64."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


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


def gradients(function, arguments):
    """Gradients of a scalar `function(arguments)` with respect to each argument.

    Args:
        function: callable of one list of tensors, returning a scalar tensor.
        arguments: list of tensors.

    Returns:
        List of tensors, one gradient for each argument.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            value = function(arguments)
        return tape.gradient(value, arguments)
    if backend == "jax":
        import jax

        return jax.grad(function)(arguments)
    raise ValueError(
        f"Gradients need the TensorFlow or the JAX backend. This is {backend!r}."
    )
