"""What an earlier version saved is loaded by this one, and computes the same."""

import keras
import numpy as np
import pytest
import saved_models

FILES = sorted(saved_models.FOLDER.glob("*/*.keras"))


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_models_of_all_versions_are_loaded(path):
    model = keras.models.load_model(path)
    x, expected = saved_models.inputs(model), np.load(path.with_suffix(".npy"))
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)
    assert model.optimizer.iterations == 1
    model.fit(x, np.zeros_like(expected), verbose=0)  # goes on


def test_there_are_files_of_each_model():
    assert {path.stem for path in FILES} == {*saved_models.MODELS}
