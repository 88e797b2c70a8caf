"""Models with each layer of the package, to be written by one version and read by all.

    PYTHONPATH=tests python tests/saved_models.py

writes those of this version to `tests/saved/VERSION`, once it is released.
"""

from pathlib import Path

import keras
import numpy as np

import keras_bsnn
from keras_bsnn import callbacks, layers, models

FOLDER = Path(__file__).parent / "saved"
FLAT, SEQUENCE = (6,), (5, 3)
MODELS = {
    "bsnn": lambda: models.bsnn_mlp(3, 8, input_shape=FLAT),
    "unstacked": lambda: models.bsnn_mlp(2, 8, "tanh", stacked=False, input_shape=FLAT),
    "batchnorm": lambda: models.batchnorm_mlp(3, 8, input_shape=FLAT),
    "roaf": lambda: models.roaf_mlp(3, 8, filter="rotations", input_shape=FLAT),
    "recurrent": lambda: models.roaf_rnn(8, alpha=0.9, input_shape=SEQUENCE),
    "einsum": lambda: keras.Sequential(
        [
            keras.Input(SEQUENCE),
            layers.OrthogonalEinsumDense("abc,cde->abde", (None, 2, 2), "gp_gelu"),
            keras.layers.Flatten(),
        ]
    ),
}


def inputs(model):
    """The same for all versions."""
    return np.random.RandomState(0).randn(4, *model.input_shape[1:]).astype("float32")


def write(folder):
    """Writes each model after a step of training, and what it then computes."""
    folder.mkdir(parents=True)
    for name, make in MODELS.items():
        model = make()
        model.compile(keras_bsnn.optimizers.StiefelMuon(0.05), "mse")
        x = inputs(model)
        y = np.zeros_like(model.predict(x, verbose=0))
        model.fit(x, y, verbose=0, callbacks=[callbacks.Retract()])
        model.save(folder / f"{name}.keras")
        np.save(folder / f"{name}.npy", model.predict(x, verbose=0))


if __name__ == "__main__":
    write(FOLDER / keras_bsnn.__version__)
