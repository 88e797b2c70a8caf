"""What comes from a file is data: no pickle and no lambda of it is run unasked."""

import ast
import os
import pathlib
import pickle
import zipfile

import keras
import numpy as np
import pytest
from configs import CONFIGS, LAMBDA, OWN, SYSTEM
from draws import normal

import keras_bsnn
from keras_bsnn import activations, constraints, layers, models, report
from keras_bsnn._batches import Files

SOURCES = pathlib.Path(keras_bsnn.__file__).parent


class Bomb:
    """It makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def ran(tmp_path):
    """The folder that is there if something was run."""
    return tmp_path / "ran"


def doubled(folder):
    """A lambda that makes a folder where it runs."""
    return lambda x: (__import__("os").makedirs(folder, exist_ok=True), 2 * x)[1]


def ones(folder):
    return lambda shape, dtype=None: (
        __import__("os").makedirs(folder, exist_ok=True),
        __import__("keras").ops.ones(shape, dtype),
    )[1]


def orthogonal(constraint):
    return layers.OrthogonalDense(4, kernel_constraint=constraint)


# Each with a lambda somewhere, as a file of somebody else may have.
LOADED_IF_ASKED = {
    "of Keras": lambda folder: keras.layers.Lambda(doubled(folder)),
    "retraction": lambda folder: orthogonal(constraints.Orthogonal(doubled(folder))),
    "poincare": lambda folder: activations.GaussianPoincare(doubled(folder)),
    "shaped": lambda folder: activations.DepthShaped(doubled(folder), 5, epsilon=0.5),
    "gained": lambda folder: activations.Gained(doubled(folder), 0.5),
    "of a layer": lambda folder: layers.OrthogonalDense(
        4, activations.Gained(doubled(folder), 0.5)
    ),
    "of a stack": lambda folder: layers.DepthStack(
        layers.ROAFDense(4, 0.9, activations.Gained(doubled(folder), 0.5)), 2
    ),
}
# What Keras writes in a way that it cannot read itself.
NEVER_LOADED = {
    "activation": lambda folder: layers.OrthogonalDense(4, doubled(folder)),
    "of batch norm": lambda folder: layers.BatchNormDense(4, doubled(folder)),
    "of a filter": lambda folder: layers.ROAFDense(4, 0.9, doubled(folder)),
    "initializer": lambda folder: layers.OrthogonalDense(
        4, kernel_initializer=ones(folder)
    ),
    "constraint": lambda folder: orthogonal(doubled(folder)),
}


def saved(make, folder, ran):
    layer = make(str(ran))
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(loss="mse")
    model.save(folder / "model.keras")
    if ran.exists():
        ran.rmdir()
    return folder / "model.keras"


@pytest.fixture(params=LOADED_IF_ASKED | NEVER_LOADED)
def file(request, tmp_path, ran):
    """A saved model with a lambda."""
    makers = LOADED_IF_ASKED | NEVER_LOADED
    return saved(makers[request.param], tmp_path, ran)


def test_a_file_with_a_lambda_is_refused(file, ran):
    with pytest.raises((ValueError, TypeError), match=r"lambda|`\w+` must be"):
        keras.models.load_model(file)
    assert not ran.exists()


@pytest.mark.parametrize("name", LOADED_IF_ASKED)
def test_it_is_loaded_if_asked_for(name, tmp_path, ran):
    """Or the test above would prove nothing."""
    path = saved(LOADED_IF_ASKED[name], tmp_path, ran)
    model = keras.models.load_model(path, safe_mode=False)
    y = model(normal((2, 4), 0, "float32"))
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            variable.constraint(variable)
    assert tuple(y.shape) == (2, 4)
    assert ran.exists()


def test_the_command_refuses_it_too(file, ran, capsys, tmp_path):
    batch = tmp_path / "batch.npz"
    np.savez(batch, x=normal((8, 4), 0, "float32"), y=normal((8, 4), 1, "float32"))
    with pytest.raises(SystemExit):
        report.main([str(file), "--data", str(batch), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert "lambda" in told or "` must be" in told
    assert not ran.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("planted", [LAMBDA, SYSTEM], ids=["lambda", "os.system"])
@pytest.mark.parametrize("name", CONFIGS)
def test_no_argument_takes_code(name, planted):
    kind, config = CONFIGS[name]
    for argument in OWN[name]:
        with pytest.raises((ValueError, TypeError), match=f"`{argument}` must be"):
            kind.from_config({**config, argument: planted})


def as_command(path, data, tmp_path):
    out = str(tmp_path / "out.html")
    with pytest.raises(SystemExit) as caught:
        report.main([str(path), "--data", str(data), "--out", out])
    assert caught.value.code == 2


def test_a_pickle_is_not_loaded_as_a_batch(tmp_path, ran):
    model = models.bsnn_mlp(1, 2, "gp_tanh", input_shape=(4,))
    model.compile(loss="mse")
    model.save(tmp_path / "model.keras")
    objects = np.array([Bomb(ran)], dtype=object)
    np.savez(tmp_path / "objects.npz", x=objects, y=objects)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Bomb(ran)))
    for name in ("objects.npz", "raw.npz"):
        as_command(tmp_path / "model.keras", tmp_path / name, tmp_path)
        assert not ran.exists()
    pickle.loads(pickle.dumps(Bomb(ran)))  # it would have been seen
    assert ran.exists()


def test_a_pickle_is_not_loaded_as_a_model(tmp_path, ran):
    (tmp_path / "raw.keras").write_bytes(pickle.dumps(Bomb(ran)))
    as_command(tmp_path / "raw.keras", "digits", tmp_path)
    assert not ran.exists()


def test_a_pickle_is_not_loaded_as_weights(tmp_path, ran):
    """Which may be arrays of NumPy within a `.keras` file."""
    models.bsnn_mlp(1, 2, "gp_tanh", input_shape=(4,)).save(tmp_path / "model.keras")
    np.savez(tmp_path / "bomb.npz", **{"layers/dense/vars": np.array([Bomb(ran)])})
    with (
        zipfile.ZipFile(tmp_path / "model.keras") as whole,
        zipfile.ZipFile(tmp_path / "changed.keras", "w") as changed,
    ):
        for name in ("metadata.json", "config.json"):
            changed.writestr(name, whole.read(name))
        changed.write(tmp_path / "bomb.npz", "model.weights.npz")
    as_command(tmp_path / "changed.keras", "digits", tmp_path)
    assert not ran.exists()


def test_a_pickle_is_not_loaded_from_files_between_layers(tmp_path, ran):
    files = Files([np.array([Bomb(ran)], dtype=object)], tmp_path)
    with pytest.raises(ValueError, match="pickle"):
        next(iter(files))
    assert not ran.exists()


def test_the_sources_ask_for_none_of_it():
    unsafe = {"pickle", "marshal", "shelve", "dill", "joblib", "eval", "exec"}
    unsafe |= {"allow_pickle", "safe_mode", "enable_unsafe_deserialization"}
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {
                getattr(node, field, None) for field in ("id", "attr", "arg", "module")
            }
            names |= {
                alias.name
                for alias in getattr(node, "names", ()) or ()
                if isinstance(alias, ast.alias)
            }
            assert not names & unsafe, path
