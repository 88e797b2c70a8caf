"""ONNX files, for ONNX Runtime and others."""

import functools
import re

import numpy as np

from keras_bsnn._public import public
from keras_bsnn.export import _draft
from keras_bsnn.export._converters import check_backend, lacking


@public
def onnx(model, path, preprocessing=None):
    """Exports a model as an ONNX file, with any batch size, and any length if it has.

    The file appears complete or not at all, and passes ONNX's own check. Needs the
    packages tf2onnx and onnx.

    `keras_bsnn.export.to_keras(model)` has fewer operations, and is faster.

    Args:
        model: a built Keras model.
        path: of the file to create, `"....onnx"`.
        preprocessing: a built Keras model whose outputs are the inputs of `model`, to
            be its first part. `None` for none.

    Raises:
        FileExistsError: `path` exists already.
        ValueError: `model` or `preprocessing` is not built, a weight is not finite,
            ONNX lacks an operation, or Keras does not run on TensorFlow.

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
    _know_erfc()
    with _draft.of(path) as draft:
        signature = _draft.signature(whole)
        whole.export(draft, format="onnx", verbose=False, input_signature=signature)
        _check(draft)


def _check(path):
    import onnx

    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        operations = re.findall(r"No Op registered for (\w+)", str(error))
        if not operations:
            raise
        raise lacking("ONNX", operations) from error


@functools.cache
def _know_erfc():
    """Tells tf2onnx that `erfc(x) = 1 + erf(-x)`, which GELU has in it."""
    from tf2onnx.handler import tf_op
    from tf2onnx.utils import ONNX_TO_NUMPY_DTYPE

    @tf_op("Erfc", onnx_op="Erf")
    class Erfc:
        @classmethod
        def version_9(cls, ctx, node, **kwargs):
            dtype = ONNX_TO_NUMPY_DTYPE[ctx.get_dtype(node.output[0])]
            one = ctx.make_const(f"{node.name}/one", np.ones((), dtype))
            ctx.insert_new_node_on_input(node, "Neg", node.input[0])
            inputs = [node.output[0], one.output[0]]
            ctx.insert_new_node_on_output("Add", node.output[0], inputs=inputs)
