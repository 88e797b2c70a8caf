"""Statistics of batch normalization that belong to the weights as they are."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from keras_bsnn.recalibration import Recalibration


class RecalibrateBatchNorm(keras.callbacks.Callback):
    """Recalibrates batch normalization before each evaluation and after training.

    The metrics of `validation_data` are then those of the statistics that the trained
    model will have. See `keras_bsnn.recalibration.recalibrate`.

    Args:
        dataset: An array of inputs, or batches, as `recalibrate` takes them; 10,000
            training samples are plenty for 100 units.
        folder: Path of an existing folder for outputs of layers that do not fit into
            memory. Defaults to `None`: they are kept in memory.
        validation: Boolean, whether to recalibrate before each validation, too.
            Defaults to `True`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.batchnorm_mlp(10, 16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((64, 4)), keras.random.normal((64, 10))
    >>> callback = keras_bsnn.callbacks.RecalibrateBatchNorm(x)
    >>> history = model.fit(x, y, batch_size=32, callbacks=[callback], verbose=0)
    """

    def __init__(
        self,
        dataset: Iterable,
        folder: str | Path | None = None,
        validation: bool = True,
    ):
        super().__init__()
        self.dataset, self.validation = dataset, validation
        self.recalibrate = Recalibration(folder)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.validation:
            self.recalibrate(self.model, self.dataset)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.recalibrate(self.model, self.dataset)
