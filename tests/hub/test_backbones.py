"""Backbones of keras-hub do what they did, once their layers are loops."""

import hub
import keras
import pytest
from hub import assert_equal, stacks

from keras_bsnn.stacking import stack_layers, unstack

pytestmark = pytest.mark.slow

# How many became of the layers of each. The first layer of T5's encoder, and of its
# decoder, computes a bias that the others are given.
LOOPS = {
    **dict.fromkeys(hub.BACKBONES, 1),
    "t5": 2,
    "bart": 2,
    "whisper": 2,
    "deit": 0,  # whose layers return what is no tensor besides
}


@pytest.fixture(scope="module", params=hub.BACKBONES)
def case(request):
    """Name, the model, the same with loops, and inputs."""
    plain = hub.backbone(request.param)
    return request.param, plain, stack_layers(plain), hub.data(request.param, plain)


def test_it_is_stacked(case):
    name, plain, stacked, x = case
    assert len(stacks(stacked)) == LOOPS[name], stacked.report
    assert stacked.report.count(" equal parts ") == LOOPS[name]
    assert_equal(stacked(x), plain(x))


def described(model):
    return [(w.name, tuple(w.shape), w.dtype) for w in model.weights]


def test_it_is_saved_and_taken_apart(case, tmp_path):
    _, plain, stacked, x = case
    expected = stacked(x)
    stacked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded(x), expected, atol=0)
    before = unstack(loaded)
    assert type(before) is type(plain)
    assert described(before) == described(plain)
    assert_equal(before(x), expected)


def test_it_trains_as_without_loops(case):
    _, plain, stacked, x = case
    hub.assert_trains_equally(stacked, plain, x, atol=1e-5)
