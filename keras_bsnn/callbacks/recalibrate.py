"""Statistics of batch normalization that are those of the weights."""

import keras

from keras_bsnn._public import public
from keras_bsnn.recalibration import Recalibration


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
