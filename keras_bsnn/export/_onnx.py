"""ONNX files, for ONNX Runtime and others."""

import functools
import os
import re

import keras
import numpy as np

from keras_bsnn._requirements import extra
from keras_bsnn.export import _draft
from keras_bsnn.export._converters import check_backend, lacking


def onnx(
    model: keras.Model,
    path: str | os.PathLike,
    preprocessing: keras.Model | None = None,
) -> None:
    """Exports a model as an ONNX file.

    The batch size is free, and so is the length of sequences if it is in the model. The
    file is written completely or not at all, and passes ONNX's own check. The packages
    tf2onnx and onnx are needed.

    `keras_bsnn.export.to_keras(model)` has fewer operations, and is faster.

    Args:
        model: A built Keras model.
        path: Path of the file to create, `"....onnx"`.
        preprocessing: A built Keras model whose outputs are the inputs of `model`, to
            be its first part. Defaults to `None`.

    Raises:
        FileExistsError: If `path` exists already.
        ValueError: If `model` or `preprocessing` is not built, if a weight is not
            finite, if ONNX lacks an operation, if tf2onnx cannot write the shapes of
            images of unknown size, or if Keras does not run on TensorFlow.

    Source: this package.

    Example:

    >>> import os, tempfile, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=8, input_shape=(4,))
    >>> path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    >>> keras_bsnn.export.onnx(model, path)
    >>> os.path.getsize(path) < 30_000
    True
    """
    check_backend("ONNX")
    whole = _draft.whole(model, preprocessing)
    with _draft.complete(path) as draft:
        _convert(whole, draft)
        _check(draft)


def _convert(model, path):
    import tensorflow as tf

    with extra("onnx"):
        import tf2onnx

    specs = keras.tree.map_structure(
        lambda x: tf.TensorSpec(x.shape, x.dtype, x.name), _draft.signature(model)
    )
    function = tf.function(functools.partial(model, training=False))
    handlers = {"Erfc": (_erfc, ["Erf"])}
    tf2onnx.convert.from_function(
        function, specs, custom_op_handlers=handlers, output_path=path
    )


def _erfc(ctx, node, name, args):
    """Turns a node `erf(x)`, which stands in for `erfc(x)`, into `1 + erf(-x)`.

    GELU contains `erfc`, which tf2onnx does not know.
    """
    from tf2onnx.utils import ONNX_TO_NUMPY_DTYPE

    dtype = ONNX_TO_NUMPY_DTYPE[ctx.get_dtype(node.output[0])]
    one = ctx.make_const(f"{name}/one", np.ones((), dtype))
    ctx.insert_new_node_on_input(node, "Neg", node.input[0])
    inputs = [node.output[0], one.output[0]]
    ctx.insert_new_node_on_output("Add", node.output[0], inputs=inputs)


def _check(path):
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        # The optimizer of tf2onnx loses count of several sizes that are not known.
        raise ValueError(
            "`model` must have shapes that tf2onnx can write: give images a known "
            f"size, such as keras.Input((28, 28, 1)). ONNX says: {error}"
        ) from error
    except onnx.checker.ValidationError as error:
        operations = re.findall(r"No Op registered for (\w+)", str(error))
        if not operations:
            raise
        raise lacking("ONNX", operations) from error
