"""The adding problem over ten thousand steps: ROAF, LSTM, GRU and SimpleRNN.

    python examples/reproduce/roaf_adding.py

Each network has the same units, the same data and the same minutes at most.

The memory is a cyclic shift, one of whose eigenvalues is 1: along the mean of its
features a signal stays as it is. ReLU with a negative bias lets nothing but the marked
values enter, so that ten thousand others do not drown them.
"""

import _recurrent
import keras

from keras_bsnn import datasets

BETA = 1e-4  # so small that the state hardly enters the activation


def roaf(length):
    return {
        **{"alpha": 1 - 0.01 / length, "beta": BETA, "scale": 1 / BETA},
        **{"activation": "relu", "filter": "shift"},
        "kernel_initializer": keras.initializers.RandomUniform(-1, 1, seed=1),
        "recurrent_initializer": "zeros",
        "bias_initializer": keras.initializers.Constant(-1),
    }


TASK = _recurrent.Task(
    stream=datasets.adding_problem,
    memoryless=lambda length: 1 / 6,
    loss="mse",
    features=2,
    outputs=1,
    roaf=roaf,
)

if __name__ == "__main__":
    _recurrent.experiment(__file__, TASK).main()
