"""Wide random networks, whose moments are compared with those that are predicted."""

import keras
import numpy as np

from keras_bsnn import shaping
from keras_bsnn.shaping._kernel_maps import _summary
from keras_bsnn.shaping._measured import measured

WIDTH = 512
NUMBERS = ("mean", "second_moment", "inputs", "places", "both")


def data(shape, seed, count=4, correlation=0.3):
    """Normal numbers, of which two samples have a correlation."""
    draw = np.random.default_rng(seed).normal
    common, own = draw(size=(1, *shape)), draw(size=(count, *shape))
    x = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    return x.astype("float32")


def numbers(found):
    """The mean in units of the root mean square, its logarithm, and correlations."""
    mean, second = found.mean, found.second_moment
    return np.array(
        [mean / second**0.5, np.log(second), found.inputs, found.places, found.both]
    )


def errors(make, seeds, training=False, count=4):
    """Predictions less what networks compute, and by how much these vary.

    Args:
        make: function that makes a model with other weights at each call.
        seeds: how many models.
        training: as of a call.
        count: number of samples.

    Returns:
        Two arrays for the numbers of `numbers`: the mean difference over the models,
        and its standard error.
    """
    found = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        model = make()
        x = data(model.input_shape[1:], seed, count)
        y = model(x, training=training)
        simulated = _summary("", None, measured(y))
        predicted = shaping.kernel_maps(model, x, training=training)[-1]
        found.append(numbers(predicted) - numbers(simulated))
    return np.mean(found, 0), np.std(found, 0) / (seeds - 1) ** 0.5
