"""Copy memory over ten thousand steps: ROAF, LSTM, GRU and SimpleRNN.

    python examples/reproduce/roaf_copy.py

Ten symbols come, ten thousand blanks, a marker, and then they are to be given again.
Each network has the same units, the same data and the same minutes at most.

The memory is a cyclic shift. Its kernel starts at zero for the blank, so that it is
silent while nothing happens, and a hidden layer reads it.
"""

import _recurrent
import keras
import numpy as np

from keras_bsnn import datasets

BETA = 1e-4  # so small that the state hardly enters the activation
SYMBOLS = 10  # blank, eight symbols, marker


def silent_blank(shape, dtype=None):
    values = np.random.RandomState(1).normal(size=shape)
    values[0] = 0
    return keras.ops.convert_to_tensor(values, dtype)


def roaf(length):
    return {
        **{"alpha": 1 - 0.01 / length, "beta": BETA, "scale": 1 / BETA},
        **{"readout": (128,), "filter": "shift"},
        **{"kernel_initializer": silent_blank, "recurrent_initializer": "zeros"},
    }


TASK = _recurrent.Task(
    stream=datasets.copy_memory,
    memoryless=lambda length: 10 * np.log(8) / (length + 20),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    features=SYMBOLS,
    outputs=SYMBOLS,
    roaf=roaf,
    return_sequences=True,
    padding=20,
    baseline_jit=keras.backend.backend() == "jax",
)

if __name__ == "__main__":
    defaults = {"units": 256, "batch_size": 8, "learning_rate": 3e-3}
    _recurrent.experiment(__file__, TASK, **defaults).main()
