"""Kernels that stay orthogonal, whatever changes them."""

import warnings
from typing import Any

import keras

from keras_bsnn._warnings import KerasBSNNWarning
from keras_bsnn.callbacks import _retraction


class Retract(keras.callbacks.Callback):
    """Keeps kernels orthogonal where their constraint does not act.

    The kernels with the constraint `keras_bsnn.constraints.Orthogonal`, including those
    in a `DepthStack` and in frozen layers, may leave the orthogonal matrices by other
    means than a step of the optimizer: an initializer of another kind, `set_weights`,
    loading, an exponential moving average (`use_ema=True`), or LoRA. This callback
    checks them when training, an evaluation or a prediction begins, after each epoch,
    and when training ends. A kernel whose error is above what the constraint allows
    (twice its `tolerance`, 1e-5, or the rounding of its dtype) is replaced by the
    nearest orthogonal matrix. A check takes less time than a training step.

    When training ends, all trainable kernels are replaced in this way: a float32 kernel
    then has an error below 1e-6.

    Place it in the list of callbacks after those that change weights
    (`keras.callbacks.SwapEMAWeights`), and before those that save them or measure
    (`keras.callbacks.ModelCheckpoint`, `RecalibrateBatchNorm`). `SwapEMAWeights` then
    also restores orthogonal averages, and continues averaging from these; the weights
    that it trains are the optimizer's.

    For a layer with LoRA, the sum `kernel + alpha / rank * A @ B` becomes orthogonal:
    only the frozen kernel is changed. `OrthogonalDense` has no LoRA, and a layer of
    Keras has none while it has a `kernel_constraint`. Once it is built, set
    `layer.kernel_constraint = None` to enable LoRA: the kernel itself keeps the
    constraint.

    Warns:
        UserWarning: If kernels had to be brought back, with their number, and the path
            and the error of the worst; or if a kernel has entries that are not finite,
            and is left as it is. Each warning is given at most once in a call of `fit`,
            `evaluate` or `predict`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, callbacks=[keras_bsnn.callbacks.Retract()], verbose=0)
    """

    def set_model(self, model: keras.Model) -> None:
        """Called by Keras once in each call of `fit`, `evaluate` or `predict`."""
        super().set_model(model)
        self._warned: set[str] = set()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._bring_back()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._bring_back()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._bring_back()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._bring_back()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        # The optimizer's averages are in the model by now.
        self._bring_back(exactly=True)

    def _bring_back(self, exactly=False):
        found = _retraction.bring_back(self.model, exactly)
        for kind in found.keys() - self._warned:
            self._warned.add(kind)
            warnings.warn(found[kind], KerasBSNNWarning, stacklevel=3)


def retract(model: keras.layers.Layer) -> None:
    """Does at once what the callback `Retract` does when training ends.

    Call it after `model.set_weights` or `model.load_weights`, for instance.

    Args:
        model: A built Keras model, or layer.

    Warns:
        UserWarning: If kernels had to be brought back or are not finite, as `Retract`
            does.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.set_weights([w + 1e-6 for w in model.get_weights()])
    >>> keras_bsnn.callbacks.retract(model)
    """
    for message in _retraction.bring_back(model, exactly=True).values():
        warnings.warn(message, KerasBSNNWarning, stacklevel=2)
