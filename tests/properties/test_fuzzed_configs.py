"""Configs and arguments that are garbage: an error that names what, or that value.

Never another kind of error, and never another value in silence.
"""

import json
import math
import reprlib

import numpy as np
import pytest
from configs import CONFIGS, LAMBDA, MADE, OWN, SYSTEM
from draws import ACTIVATIONS, normal
from hypothesis import example, given
from hypothesis import strategies as st

from keras_bsnn import (
    activations,
    datasets,
    initializers,
    layers,
    models,
)
from keras_bsnn.ops import gaussian, isometry, orthogonal, roaf, spectral


class Nested(dict):
    """A stack of a stack of a stack; it is printed in short."""

    def __init__(self, levels):
        config = {"class_name": "nonsense", "config": {}}
        for _ in range(levels):
            config = {
                "module": "keras_bsnn.layers",
                "class_name": "DepthStack",
                "registered_name": "keras_bsnn>DepthStack",
                "config": {"block": config, "depth": 2},
            }
        super().__init__(config)
        self.levels = levels

    def __repr__(self):
        return f"Nested({self.levels})"


numbers = st.one_of(
    st.integers(-3, 10),
    st.sampled_from([2**31, 2**32, 2**64, 10**400]),
    st.floats(),
)
words = st.sampled_from(["", "garbage", "relu", "gp_", "gp_gp_tanh", "Dense", "\0é"])
classes = st.sampled_from(["nonsense", "Dense", "Orthogonal", "Zeros", 5, None, []])
objects = st.fixed_dictionaries(
    {"class_name": classes, "config": st.sampled_from([{}, None, 7, {"units": -1}])},
    optional={
        "module": st.sampled_from([None, 3, "os", "keras.layers", "keras_bsnn.layers"]),
        "registered_name": st.sampled_from([None, "keras_bsnn>Orthogonal", "nonsense"]),
    },
)
plain = st.one_of(st.none(), st.booleans(), numbers, words)
garbage = st.one_of(
    plain,
    objects,
    st.lists(plain, max_size=2),
    st.dictionaries(words, plain, max_size=2),
    st.sampled_from([LAMBDA, SYSTEM, Nested(3), Nested(300)]),
)

PER_AXIS = ("kernel_size", "strides", "dilation_rate")
DEFAULTS = (None, "linear")  # which may be told in another way


cases = st.sampled_from([*MADE]).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(OWN[name]))
)


def is_same(a, b):
    """As JSON has it: a list for a tuple, and NaN is NaN."""
    return json.dumps(a, default=str) == json.dumps(b, default=str)


def read_or_refused(read, argument):
    """What was read, or `None` after an error that names the argument."""
    try:
        return read()
    except (ValueError, TypeError) as error:
        message = str(error)
        assert f"`{argument}`" in message or f"'{argument}'" in message, message
        return None


REFUSED = [
    ("poincare", "scale", "garbage"),
    ("poincare", "shift", None),  # beside a scale
    ("poincare", "root", "both"),
    ("shaped", "depth", math.nan),
    ("shaped", "epsilon", "garbage"),
    ("haar", "gain", math.inf),
    ("haar", "seed", -1),
    ("decay", "scale", math.nan),
    ("orthogonal", "steps", 10**9),  # each is a matrix product
    ("dense", "use_bias", "no"),
    ("batch norm", "epsilon", math.nan),
    ("batch norm", "momentum", "garbage"),
    ("batch norm", "shrinkage", 2),
    ("filter", "kernel_initializer", {}),  # was taken for `None`
    ("cell", "recurrent_initializer", ""),
    ("cell", "beta", math.nan),
    ("recurrent", "return_sequences", "no"),
    ("stack", "depth", True),
    ("stack", "block", Nested(300)),
    ("stiefel", "optimizer", {}),
    ("muon", "ns_steps", 10**9),
]


@pytest.mark.parametrize(("name", "argument", "value"), REFUSED)
def test_what_was_taken_in_silence_or_raised_another_error(name, argument, value):
    kind, config = CONFIGS[name]
    with pytest.raises((ValueError, TypeError), match=f"`{argument}` must be"):
        kind.from_config({**config, argument: value})


@given(case=cases, value=garbage)
def test_a_config_with_garbage_is_refused_or_kept(case, value):
    name, argument = case
    kind, config = CONFIGS[name]
    changed = {**config, argument: value}
    made = read_or_refused(lambda: kind.from_config(changed), argument)
    if made is not None:
        told = made.get_config()
        meant_the_same = kind.from_config(told).get_config()
        for key in config.keys() - {"name", "epsilon"}:
            if key == argument and (value in DEFAULTS or is_object(told[key])):
                continue  # a name became an object
            if key in PER_AXIS and is_same(told[key], [changed[key]] * len(told[key])):
                continue  # one size became that of each axis
            assert is_same(told[key], changed[key]), (key, changed[key], told[key])
        assert is_same(meant_the_same, told)


def is_object(config):
    return isinstance(config, (dict, str))


@given(case=cases)
def test_a_config_without_an_entry_has_its_default_or_is_refused(case):
    name, argument = case
    kind, config = CONFIGS[name]
    rest = {key: value for key, value in config.items() if key != argument}
    made = read_or_refused(lambda: kind.from_config(rest), argument)
    if made is not None:
        told = made.get_config()
        for key in rest.keys() - {"name"}:
            assert is_same(told[key], config[key])


@given(name=st.sampled_from([*MADE]), value=garbage)
def test_a_config_with_another_entry_is_refused(name, value):
    kind, config = CONFIGS[name]
    with pytest.raises((ValueError, TypeError), match="no_such_argument"):
        kind.from_config({**config, "no_such_argument": value})


@given(name=st.sampled_from([*MADE]), value=garbage)
@example(name="poincare", value={})
@example(name="stiefel", value={})
def test_a_config_that_is_none_is_refused(name, value):
    kind, _ = CONFIGS[name]
    try:
        kind.from_config(value)
    except (ValueError, TypeError) as error:
        assert str(error)
    else:
        assert value == {}  # all arguments have defaults


ARRAY = normal((4, 4), 0, "float32")
CALLS = {
    "steps": [
        lambda x: orthogonal.newton_schulz(ARRAY, x),
        lambda x: orthogonal.cayley(ARRAY, x),
        lambda x: spectral.spectral_sign(ARRAY, x),
    ],
    "root": [lambda x: gaussian.gp_constants("tanh", x)],
    "depth": [
        lambda x: roaf.jacobian_bounds(0.5, 1.0, 1.0, small(x)),
        lambda x: models.bsnn_mlp(small(x), 3, "gp_tanh"),
        lambda x: models.batchnorm_mlp(small(x), 3),
        lambda x: models.batchnorm_cnn(small(x), 4, input_shape=(4, 4, 1)),
        lambda x: models.roaf_mlp(small(x), 3),
        lambda x: models.roaf_cnn(small(x), 3, input_shape=(4, 4, 1)),
        lambda x: activations.DepthShaped("tanh", small(x), 0.001),
    ],
    "c": [lambda x: roaf.alpha_for_depth(5, x), lambda x: models.roaf_mlp(3, 3, c=x)],
    "alpha": [
        lambda x: roaf.jacobian_bounds(x, 1.0, 1.0, 3),
        lambda x: models.roaf_rnn(3, alpha=x),
    ],
    "lipschitz": [lambda x: roaf.jacobian_bounds(0.5, x, 1.0, 3)],
    "beta": [lambda x: roaf.jacobian_bounds(0.5, 1.0, 1.0, 3, x)],
    "count": [
        lambda x: isometry.jacobian_singular_values(
            lambda z: z, ARRAY[:1], 3 if x is None else x
        )
    ],
    "eta": [lambda x: activations.DepthShaped("tanh", 10, x)],
    "gain": [lambda x: models.batchnorm_mlp(2, 3, gain=x)],
    "units": [lambda x: layers.OrthogonalDense(x)],
    "filters": [
        lambda x: layers.BatchNormConv2D(x),
        lambda x: layers.ROAFConv2D(x, alpha=0.5),
    ],
    "stem": [
        lambda x: models.bsnn_cnn(2, 4, stem=x),
        lambda x: models.batchnorm_cnn(2, 4, stem=x),
        lambda x: models.roaf_cnn(2, 4, stem=x),
    ],
    "input_shape": [
        lambda x: models.batchnorm_cnn(2, 4, input_shape=x),
        lambda x: models.roaf_cnn(2, 4, input_shape=x),
    ],
    "seed": [
        lambda x: initializers.HaarOrthogonal(seed=x)((2, 2)),
        lambda x: models.bsnn_mlp(1, 3, "gp_tanh", seed=x),
        lambda x: datasets.copy_memory(3, 1, x),
    ],
    "length": [lambda x: datasets.adding_problem(x), lambda x: datasets.copy_memory(x)],
    "batch_size": [
        lambda x: datasets.adding_problem(5, x),
        lambda x: datasets.load("digits", "train", x),
    ],
    "name": [lambda x: datasets.load(x)],
    "split": [lambda x: datasets.load("digits", x)],
}
calls = st.sampled_from(
    [(name, call) for name, found in CALLS.items() for call in found]
)


def small(value):
    """What is right, but for the time it takes, is not asked for."""
    is_large = isinstance(value, int) and value > 1000
    return 7 if is_large else value


@given(calls, garbage)
@example(("matrix", lambda _: orthogonal.qr(np.eye(2, dtype="int32"))), None)
@example(
    ("direction", lambda _: orthogonal.project_tangent(np.eye(3), np.ones((3, 1)))),
    None,
)
@example(("gain", lambda x: models.batchnorm_mlp(2, 3, gain=x)), 0)
def test_an_argument_that_is_garbage_is_refused_or_taken(call, value):
    argument, function = call
    read_or_refused(lambda: function(value), argument)


@given(st.sampled_from(ACTIVATIONS), garbage)
def test_an_activation_that_is_garbage_is_refused(name, value):
    for call, argument in (
        (activations.get, "activation"),
        (lambda x: activations.Gained(x, 1.0), "function"),
        (lambda x: layers.OrthogonalDense(2, x), "activation"),
    ):
        found = read_or_refused(lambda call=call: call(value), argument)
        assert found is None or callable(found), reprlib.repr(value)
