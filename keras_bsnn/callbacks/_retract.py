"""Kernels that stay orthogonal, whatever changes them."""

import warnings

import keras

from keras_bsnn.callbacks import _retraction


class Retract(keras.callbacks.Callback):
    """Keeps kernels orthogonal where their constraint does not act.

    The kernels with the constraint `keras_bsnn.constraints.Orthogonal`, also those in a
    `DepthStack` and in frozen layers, may leave the orthogonal matrices by something
    else than a step of the optimizer: an initializer of another kind, `set_weights`,
    loading, an exponential moving average (`use_ema=True`), LoRA. This callback looks
    at them when training, an evaluation or a prediction begins, after each epoch, and
    when training ends. Each one whose error is above what the constraint allows (twice
    its `tolerance`, 1e-5, or the rounding of its dtype) is replaced by the nearest
    orthogonal matrix. A look takes less time than a training step.

    When training ends, all trainable kernels are: a float32 kernel ends with an error
    below 1e-6.

    Place it in the list of callbacks behind those that change weights
    (`keras.callbacks.SwapEMAWeights`), and before those that save them or measure
    (`keras.callbacks.ModelCheckpoint`, `RecalibrateBatchNorm`). `SwapEMAWeights` then
    also takes orthogonal averages back, and goes on averaging from these; the weights
    that it trains are the optimizer's.

    Of a layer with LoRA, the sum `kernel + alpha / rank * A @ B` becomes orthogonal, by
    a change of the frozen kernel alone. `OrthogonalDense` has no LoRA, and layers of
    Keras have none as long as they have a `kernel_constraint`; after
    `layer.kernel_constraint = None` they do, and the built kernel keeps its constraint.

    Warns:
        UserWarning: kernels had to be brought back, that is, their errors were above
            what the constraint allows: how many, and the path and the error of the
            worst. Or the entries of a kernel are not finite: it is left as it is. Each
            at most once in a call of `fit`, `evaluate` or `predict`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, callbacks=[keras_bsnn.callbacks.Retract()], verbose=0)
    """

    def set_model(self, model):
        """Keras calls it once for each call of `fit`, `evaluate` or `predict`."""
        super().set_model(model)
        self._warned = set()

    def on_train_begin(self, logs=None):
        self._bring_back()

    def on_test_begin(self, logs=None):
        self._bring_back()

    def on_predict_begin(self, logs=None):
        self._bring_back()

    def on_epoch_end(self, epoch, logs=None):
        self._bring_back()

    def on_train_end(self, logs=None):
        # The optimizer's averages are in the model by now.
        self._bring_back(exactly=True)

    def _bring_back(self, exactly=False):
        found = _retraction.bring_back(self.model, exactly)
        for kind in found.keys() - self._warned:
            self._warned.add(kind)
            warnings.warn(found[kind], stacklevel=3)


def retract(model):
    """What the callback `Retract` does when training ends, at once.

    For instance after `model.set_weights` or `model.load_weights`.

    Args:
        model: a built Keras model, or layer.

    Warns:
        UserWarning: as `Retract`.

    Source: this package.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.set_weights([w + 1e-6 for w in model.get_weights()])
    >>> keras_bsnn.callbacks.retract(model)
    """
    for message in _retraction.bring_back(model, exactly=True).values():
        warnings.warn(message, stacklevel=2)
