"""What is saved and exported of backbones with loops, and who can read it."""

import subprocess
import sys

import hub
import keras
import numpy as np
import pytest
from arrays import array
from backends import HAS_FLOAT64 as IS_TENSORFLOW
from hub import assert_equal

from keras_bsnn.stacking import stack_layers, unstack

pytestmark = pytest.mark.slow

SOME = ["bert", "gpt2", "gemma2", "t5", "whisper"]
# A process that cannot import this package.
ALONE = """
import sys
sys.modules["keras_bsnn"] = None
import pathlib, keras, keras_hub, numpy as np
for path in pathlib.Path(sys.argv[1]).glob("*.keras"):
    model = keras.models.load_model(path)
    inputs = np.load(path.with_suffix(".inputs.npz"))
    outputs = keras.tree.flatten(model({name: inputs[name] for name in inputs}))
    outputs = map(keras.ops.convert_to_numpy, outputs)
    np.savez(path.with_suffix(".outputs.npz"), *outputs)
"""


def test_keras_hub_alone_loads_what_was_unstacked(tmp_path):
    expected = {}
    for name in SOME:
        stacked = stack_layers(hub.backbone(name))
        x = hub.data(name, stacked)
        for weight in stacked.trainable_weights:
            weight.assign(0.9 * weight)
        expected[name] = keras.tree.flatten(stacked(x))
        unstack(stacked).save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.inputs.npz", **x)
    subprocess.run([sys.executable, "-c", ALONE, tmp_path], check=True)
    for name in SOME:
        with np.load(tmp_path / f"{name}.outputs.npz") as outputs:
            assert_equal([outputs[key] for key in outputs], expected[name])


@pytest.mark.skipif(not IS_TENSORFLOW, reason="TensorFlow writes SavedModels")
@pytest.mark.parametrize("name", ["bert", "gpt2", "gemma2"])
def test_a_saved_model_takes_any_batch(name, tmp_path):
    import tensorflow as tf

    stacked = stack_layers(hub.backbone(name))
    stacked.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    size = hub.size(name)
    for batch in (1, 5):
        x = hub._backbones.data(stacked, size, batch)
        ours = keras.tree.map_structure(array, served.serve(x))
        assert_equal(ours, stacked(x))
