"""Models on their way out: SavedModel."""

import os
import tempfile

from keras_bsnn._public import public


@public
def saved_model(model, path):
    """Exports a model as a TensorFlow SavedModel, which is served without this package.

    The folder appears complete or not at all.

    Args:
        model: a built Keras model.
        path: of the folder to create.

    Raises:
        FileExistsError: `path` exists already.

    Example:

    >>> import os, tempfile, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=8, input_shape=(4,))
    >>> path = os.path.join(tempfile.mkdtemp(), "model")
    >>> keras_bsnn.export.saved_model(model, path)
    >>> sorted(os.listdir(path))
    ['assets', 'fingerprint.pb', 'saved_model.pb', 'variables']
    """
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise FileExistsError(
            f"`path` must not exist yet, so that no model is lost. Received: {path}"
        )
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        draft = os.path.join(folder, "model")
        model.export(draft, verbose=False)
        os.rename(draft, path)
