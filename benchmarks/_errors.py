"""The orthogonality errors of a model in training."""

import keras

from keras_bsnn import manifolds


def largest_error(kernels):
    """Of pairs of a kernel and its manifold, in float32."""
    errors = (keras.ops.convert_to_numpy(m.error(kernel)) for kernel, m in kernels)
    return max(float(error.max()) for error in errors)


class Errors(keras.callbacks.Callback):
    """The error after each step, in `errors`.

    Args:
        measure: function of the constrained kernels, as `largest_error`, the default.
    """

    def __init__(self, measure=largest_error):
        super().__init__()
        self.measure, self.errors = measure, []

    def on_train_batch_end(self, batch, logs=None):
        kernels = manifolds.constrained(self.model.trainable_variables)
        self.errors.append(self.measure(kernels))
