"""LiteRT files, for phones and small devices."""

import os
import re

import keras

from keras_bsnn.export import _draft
from keras_bsnn.export._converters import check_backend, lacking
from keras_bsnn.ops import _check


def litert(
    model: keras.Model,
    path: str | os.PathLike,
    preprocessing: keras.Model | None = None,
    batch_size: int | None = None,
) -> None:
    """Exports a model for LiteRT, formerly TensorFlow Lite.

    The file is written completely or not at all. It has only LiteRT's own operations,
    so that every runtime of LiteRT can run it, such as the package ai-edge-litert.

    `keras_bsnn.export.to_keras(model)` has fewer operations, and is faster.

    Args:
        model: A built Keras model.
        path: Path of the file to create, `"....tflite"`.
        preprocessing: A built Keras model whose outputs are the inputs of `model`, to
            be its first part. Defaults to `None`.
        batch_size: Integer, the number of samples in a call. LiteRT must know it for a
            recurrent layer that returns sequences, and for the recurrent layers of
            Keras itself, which `to_keras` makes. Defaults to `None`: any number.

    Raises:
        FileExistsError: If `path` exists already.
        ValueError: If `path` or `batch_size` is not as described, if `model` or
            `preprocessing` is not built, if a weight is not finite, if LiteRT lacks an
            operation, or if Keras does not run on TensorFlow.

    Source: this package.

    Example:

    >>> import os, tempfile, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=8, input_shape=(4,))
    >>> path = os.path.join(tempfile.mkdtemp(), "model.tflite")
    >>> keras_bsnn.export.litert(model, path)
    >>> os.path.getsize(path) < 30_000
    True
    """
    check_backend("LiteRT")
    if not str(path).endswith(".tflite"):
        raise ValueError(f"`path` must end in .tflite. Received: {path}")
    if batch_size is not None:
        batch_size = _check.integer("batch_size", batch_size)
    whole = _draft.whole(model, preprocessing)
    with _draft.complete(path) as draft:
        _convert(whole, draft, batch_size)


def _convert(model, path, batch_size):
    import tensorflow as tf

    settings = {
        "input_signature": _draft.signature(model, batch_size),
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        # Its batched product, of a kernel that is looked up, loses a ReLU after it.
        "unfold_batchmatmul": True,
    }
    try:
        model.export(path, format="litert", verbose=False, **settings)
    except Exception as error:  # the converter's class of errors is not public
        operations = set(re.findall(r"'tf\.(\w+)' op", str(error)))
        if not operations:
            raise
        if "TensorListReserve" in operations and batch_size is None:
            raise ValueError(
                "`batch_size` must be a number for this model: LiteRT keeps no "
                "sequence for any number of samples. Received: batch_size=None"
            ) from error
        raise lacking("LiteRT", operations) from error
