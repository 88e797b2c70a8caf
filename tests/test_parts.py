"""The parts of a model are its layers, however deeply they are nested."""

import keras
import numpy as np
import pytest

from keras_bsnn import _facts
from keras_bsnn._parts import parts
from keras_bsnn.layers import (
    BatchNormConv2D,
    BatchNormDense,
    DepthStack,
    OrthogonalDense,
    ROAFConv2D,
    ROAFDense,
)


def block(name):
    """Its weights that are trained, and those that are not, take turns."""
    layers = [
        keras.layers.BatchNormalization(name="norm"),
        OrthogonalDense(4, name="dense"),
        keras.layers.Dropout(0.5, seed=0, name="dropout"),
        BatchNormDense(4, name="last"),
    ]
    return keras.Sequential([keras.Input((4,)), *layers], name=name)


def nested():
    """A model in a model, and a model in a stack in a stack in a model."""
    inner = DepthStack(block("block"), 3, name="inner")
    layers = [block("model"), DepthStack(inner, 2, name="outer")]
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.ReLU(name="re")])


def test_names_and_shapes():
    found = list(parts(nested()))
    names = ["norm", "dense", "dropout", "last"]
    assert [part.name for part in found] == [
        *(f"model/{name}" for name in names),
        *(f"outer/inner/{name}" for name in names),
        "re",
    ]
    assert [part.stacked for part in found] == [()] * 4 + [(2, 3)] * 4 + [()]
    for alone, stacked in zip(found[:4], found[4:8], strict=True):
        assert type(alone.layer) is type(stacked.layer)
        assert [(2, 3, *w.shape) for w in alone.weights] == [
            tuple(w.shape) for w in stacked.weights
        ]


def test_a_name_for_each_layer():
    *_, dense, _, _, re = parts(nested())
    assert re.names() == ["re"]
    assert dense.names() == [
        f"outer/{i}/inner/{j}/dense" for i in range(2) for j in range(3)
    ]


def test_weights_are_those_of_the_layers():
    model = nested()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    outer = model.layers[1]
    of_stacks = [part for part in parts(model) if part.stacked]
    for i in range(2):
        for j in range(3):
            layers = outer.layer_at(i).layer_at(j).layers
            for part, layer in zip(of_stacks, layers, strict=True):
                values = [keras.ops.convert_to_numpy(w)[i, j] for w in part.weights]
                for value, expected in zip(values, layer.get_weights(), strict=True):
                    np.testing.assert_array_equal(value, expected)


def test_each_weight_is_in_one_part():
    model = nested()
    found = [id(w) for part in parts(model) for w in part.weights]
    states = {v.path for v in model.variables if "seed" in v.name}
    assert len(found) == len(set(found))
    weights = [w for w in model.weights if w.path not in states]
    assert set(found) == {id(w) for w in weights}


def test_a_stack_that_is_not_built_has_no_parts():
    with pytest.raises(ValueError, match="is not built"):
        next(parts(DepthStack(OrthogonalDense(4), 3)))


class Derived(OrthogonalDense):
    """It may compute anything."""


AFFINE = {
    "dense": keras.layers.Dense(4),
    "ours": OrthogonalDense(4),
    "normalized": BatchNormDense(4, affine=True),
    "activation": keras.layers.Activation("linear"),
    "model": block("block"),
    "stack": DepthStack(block("block"), 3),
}
NOT_AFFINE = {
    "dense": keras.layers.Dense(4, "tanh"),
    "ours": OrthogonalDense(4, "relu"),
    "normalized": BatchNormDense(4, "relu"),
    "derived": Derived(4),
    "additive": ROAFDense(4, 0.9),
    "of images": BatchNormConv2D(4),
    "additive of images": ROAFConv2D(4, alpha=0.9),
    "axis": keras.layers.BatchNormalization(axis=1),
    "stack": DepthStack(OrthogonalDense(4, "tanh"), 3),
    "sequence": DepthStack(OrthogonalDense(4), 3, return_sequences=True),
    "model": keras.Sequential([keras.layers.Dense(4), keras.layers.ReLU()]),
}


@pytest.mark.parametrize("name", AFFINE)
def test_affine(name):
    assert _facts.is_affine(AFFINE[name])


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_not_affine(name):
    assert not _facts.is_affine(NOT_AFFINE[name])


def test_what_normalizes():
    assert _facts.is_normalizing(BatchNormDense(4))
    assert _facts.is_normalizing(BatchNormConv2D(4))
    assert _facts.is_normalizing(keras.layers.BatchNormalization())
    assert not _facts.is_normalizing(OrthogonalDense(4))
