"""TensorFlow SavedModels."""

import os
import tempfile

import keras

from keras_bsnn._public import public
from keras_bsnn.export import certificate


@public
def saved_model(model, path, preprocessing=None, tolerance=1e-4):
    """Exports a model as a TensorFlow SavedModel, which is served without this package.

    The folder appears complete or not at all. It has a `certificate.json`, which
    `keras_bsnn.export.verify` reads: what the kernels are, and hashes of the weights
    and of the files.

    Args:
        model: a built Keras model.
        path: of the folder to create.
        preprocessing: a built Keras model whose outputs are the inputs of `model`, to
            be served as its first part: what is served takes raw inputs. `None` for
            none.
        tolerance: orthogonality error that kernels with the constraint `Orthogonal` may
            have.

    Raises:
        FileExistsError: `path` exists already.
        ValueError: `model` or `preprocessing` is not built, a weight is not finite, or
            a kernel is not as orthogonal as it must be.

    Example:

    >>> import os, tempfile, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=8, input_shape=(4,))
    >>> path = os.path.join(tempfile.mkdtemp(), "model")
    >>> keras_bsnn.export.saved_model(model, path)
    >>> sorted(os.listdir(path))
    ['assets', 'certificate.json', 'fingerprint.pb', 'saved_model.pb', 'variables']
    """
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise FileExistsError(
            f"`path` must not exist yet, so that no model is lost. Received: {path}"
        )
    for name, part in (("model", model), ("preprocessing", preprocessing)):
        if part is not None and not getattr(part, "built", False):
            raise ValueError(
                f"`{name}` must be a built keras.Model. Received: {part!r}"
            )
    certified = certificate.of(model, tolerance)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        draft = os.path.join(folder, "model")
        _whole(model, preprocessing).export(draft, verbose=False)
        certificate.write(certified, draft)
        os.rename(draft, path)


def _whole(model, preprocessing):
    if preprocessing is None:
        return model
    inputs, outputs = map(_alone, (preprocessing.inputs, preprocessing.outputs))
    return keras.Model(inputs, model(outputs, training=False))


def _alone(tensors):
    """The only one: a list of it would be another structure to those who serve it."""
    return tensors[0] if len(tensors) == 1 else tensors
