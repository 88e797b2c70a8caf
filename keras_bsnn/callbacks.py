"""Callbacks of `model.fit`."""

import keras

from keras_bsnn._public import public
from keras_bsnn.constraints import orthogonal_kernels
from keras_bsnn.ops import _backend, orthogonal
from keras_bsnn.recalibration import Recalibration

MATRICES_AT_ONCE = 64


@public
class Retract(keras.callbacks.Callback):
    """Brings orthogonal kernels to full precision when training ends.

    All kernels with the constraint `keras_bsnn.constraints.Orthogonal`, also those in a
    `DepthStack`, are replaced by the nearest orthogonal matrices, computed in float64:
    a float32 kernel ends with an error below 1e-6.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, callbacks=[keras_bsnn.callbacks.Retract()], verbose=0)
    """

    def on_train_end(self, logs=None):
        for variable in orthogonal_kernels(self.model):
            _retract(variable)


@public
class RecalibrateBatchNorm(keras.callbacks.Callback):
    """Before each evaluation and when training ends, recalibrates the statistics.

    So the metrics of `validation_data` are those of the statistics that the trained
    model will have.

    Args:
        dataset: as of `keras_bsnn.recalibration.recalibrate`; 10,000 training samples
            are plenty for 100 units.
        folder: as there.
        validation: whether to recalibrate before each validation, too.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.batchnorm_mlp(10, 16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((64, 4)), keras.random.normal((64, 10))
    >>> callback = keras_bsnn.callbacks.RecalibrateBatchNorm(x)
    >>> history = model.fit(x, y, batch_size=32, callbacks=[callback], verbose=0)
    """

    def __init__(self, dataset, folder=None, validation=True):
        super().__init__()
        self.dataset, self.validation = dataset, validation
        self.recalibrate = Recalibration(folder)

    def on_test_begin(self, logs=None):
        if self.validation:
            self.recalibrate(self.model, self.dataset)

    def on_train_end(self, logs=None):
        self.recalibrate(self.model, self.dataset)


def _retract(variable):
    """In slices, so that the copies in float64 stay small."""
    matrices = keras.ops.convert_to_numpy(variable)
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    exact = flat.copy()
    for start in range(0, len(flat), MATRICES_AT_ONCE):
        some = slice(start, start + MATRICES_AT_ONCE)
        with _backend.float64():
            wide = keras.ops.convert_to_tensor(flat[some].astype("float64"))
            near = orthogonal.retract(wide, orthogonal.newton_schulz)
            exact[some] = keras.ops.convert_to_numpy(orthogonal.newton_schulz(near))
    variable.assign(exact.reshape(matrices.shape))
