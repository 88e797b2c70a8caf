"""Files that are damaged: an error, or exactly what was written, never something else.

Of what Keras alone writes and reads (`.weights.h5`) nobody can promise it: the file has
no checksum. A `.keras` file is a zip archive, which has.
"""

import functools
import io
import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
from backends import IS_TORCH, NO_SAVED_MODEL
from draws import normal, property_of, rarely
from hypothesis import example, given
from hypothesis import strategies as st

from keras_bsnn import datasets, export, models, report

places = st.floats(0, 1, exclude_max=True)  # in a file, from its beginning to its end
bits = st.integers(0, 7)
MEMBERS = ["metadata.json", "config.json", "model.weights.h5"]


def flipped(content, place, bit):
    found = bytearray(content)
    found[int(place * len(found))] ^= 1 << bit
    return bytes(found)


def truncated(content, place):
    return content[: int(place * len(content))]


def made(seed=0):
    model = models.bsnn_mlp(2, 3, "gp_tanh", input_shape=(4,), seed=seed)
    model.compile(loss="mse")
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, and its file as bytes, with a path for what is damaged."""
    model, path = made(), tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return model, path.read_bytes(), path


def loads_exactly_or_not_at_all(saved, content):
    """Whether it was loaded, and then exactly; else that there are words."""
    model, _, path = saved
    path.write_bytes(content)
    try:
        again = keras.models.load_model(path)
    except Exception as error:
        assert str(error)
        return False
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    return True


@rarely
@given(place=places, bit=bits)
def test_a_flipped_bit_of_a_model_is_found_or_harmless(saved, place, bit):
    loads_exactly_or_not_at_all(saved, flipped(saved[1], place, bit))


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
def test_a_flipped_bit_of_what_counts_is_found(saved, member):
    with zipfile.ZipFile(io.BytesIO(saved[1])) as file:
        middle = saved[1].index(file.read(member)[:60]) + 30
    found = flipped(saved[1], middle / len(saved[1]), 3)
    assert not loads_exactly_or_not_at_all(saved, found)


@rarely
@given(place=places)
@example(place=0.0)
def test_a_truncated_model_is_refused(saved, place):
    assert not loads_exactly_or_not_at_all(saved, truncated(saved[1], place))


def archive(contents):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, content in contents.items():
            target.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("change", ["missing", "empty", "garbage", "of another"])
def test_members_that_are_wrong(saved, member, change):
    with zipfile.ZipFile(io.BytesIO(saved[1])) as file:
        contents = {name: file.read(name) for name in MEMBERS}
    other = MEMBERS[MEMBERS.index(member) - 1]
    new = {"empty": b"", "garbage": b"\0garbage" * 9, "of another": contents[other]}
    del contents[member]
    if change != "missing":
        contents[member] = new[change]
    # Nothing in the first tells of the model.
    is_needed = member != "metadata.json"
    loaded = loads_exactly_or_not_at_all(saved, archive(contents))
    assert loaded != is_needed


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder, and what `verify` reads there when nothing is damaged."""
    if IS_TORCH:
        pytest.skip(NO_SAVED_MODEL)
    path = tmp_path_factory.mktemp("exported") / "model"
    export.saved_model(made(), path)
    return path, export.verify(path)


files = st.integers(0, 99)


def nth_file(folder, n):
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return found[n % len(found)]


@property_of(export.saved_model, export.verify)
@given(n=files, place=places, bit=bits)
@example(n=0, place=0.2, bit=0)  # of the certificate
@example(n=0, place=0.5, bit=0)
@example(n=0, place=0.7, bit=0)
def test_any_flipped_bit_of_an_export_is_found(exported, n, place, bit):
    """Also of the certificate."""
    folder, record = exported
    path = nth_file(folder, n)
    content = path.read_bytes()
    if not content:
        return
    try:
        path.write_bytes(flipped(content, place, bit))
        with pytest.raises(ValueError, match=path.name):
            export.verify(folder)
    finally:
        path.write_bytes(content)
    assert export.verify(folder) == record


@property_of(export.verify)
@given(n=files, place=places)
@example(n=0, place=0.5)
def test_any_truncated_file_of_an_export_is_found(exported, n, place):
    folder, record = exported
    path = nth_file(folder, n)
    content = path.read_bytes()
    try:
        path.write_bytes(truncated(content, place))
        if content:
            with pytest.raises(ValueError, match=path.name):
                export.verify(folder)
        path.unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=path.name):
            export.verify(folder)
    finally:
        path.write_bytes(content)
    assert export.verify(folder) == record


@pytest.mark.parametrize("name", ["new", "assets/certificate.json"])
def test_a_new_file_in_an_export_is_found(exported, name):
    folder, _ = exported
    (folder / name).write_text("{}")
    try:
        with pytest.raises(ValueError, match=name):
            export.verify(folder)
    finally:
        (folder / name).unlink()


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Arrays in a file for `python -m keras_bsnn.report`, and that file as bytes."""
    path = tmp_path_factory.mktemp("batch") / "batch.npz"
    x, y = normal((8, 4), 0, "float32"), normal((8, 10), 1, "float32")
    np.savez(path, x=x, y=y)
    return (x, y), path.read_bytes(), path


def arguments(path):
    return report.argument_parser().parse_args(["a.keras", "--data", str(path)])


def reads_exactly_or_not_at_all(batch, content):
    arrays, _, path = batch
    path.write_bytes(content)
    try:
        found = report.load_batch(arguments(path))
    except ValueError as error:
        assert path.name in str(error)
        return False
    order = np.random.default_rng(0).permutation(8)
    for a, b in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(a, b[order])
    return True


@given(place=places, bit=bits)
def test_a_flipped_bit_of_a_batch_is_found_or_harmless(batch, place, bit):
    reads_exactly_or_not_at_all(batch, flipped(batch[1], place, bit))


@given(place=places)
@example(place=0.0)
def test_a_truncated_batch_is_refused(batch, place):
    assert not reads_exactly_or_not_at_all(batch, truncated(batch[1], place))


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_the_command_tells_of_a_damaged_model_in_one_line(saved, place, capsys):
    """It exits with 2, and writes no page."""
    _, content, path = saved
    path.write_bytes(truncated(content, place))
    out = path.with_name("page.html")
    with pytest.raises(SystemExit) as caught:
        report.main([str(path), "--data", "digits", "--out", str(out)])
    assert caught.value.code == 2 and not out.exists()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and str(path) in told


@functools.cache
def digits(folder):
    """The images as they are, prepared in a folder."""
    return read_digits(folder)


def read_digits(folder):
    data = datasets.load("digits", "train", 1500, shuffle=False, data_dir=folder)
    return [*data.as_numpy_iterator()]


INFORMATION = "dataset_info.json"
RECORDS = "digits-train.tfrecord-00000-of-00001"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    read_digits(folder / "whole")
    return folder


COUNT = iter(range(10**9))


def reads_digits_exactly_or_not_at_all(cache, name, change):
    """From a copy of the cache with one file changed."""
    folder = cache / f"damaged{next(COUNT)}"
    shutil.copytree(cache / "whole", folder)
    (path,) = folder.rglob(name)
    change(path)
    try:
        found = read_digits(folder)
    except Exception as error:  # of TensorFlow, if it is the records
        assert str(error)
        return False
    finally:
        shutil.rmtree(folder)
    for a, b in zip(found, digits(cache / "whole"), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    return True


@rarely
@given(name=st.sampled_from([INFORMATION, RECORDS]), place=places, bit=bits)
def test_a_flipped_bit_of_cached_data_is_found_or_harmless(cache, name, place, bit):
    def change(path):
        path.write_bytes(flipped(path.read_bytes(), place, bit))

    reads_digits_exactly_or_not_at_all(cache, name, change)


@rarely
@given(name=st.sampled_from([INFORMATION, RECORDS]), place=places)
def test_truncated_cached_data_are_refused(cache, name, place):
    def change(path):
        path.write_bytes(truncated(path.read_bytes(), place))

    assert not reads_digits_exactly_or_not_at_all(cache, name, change)


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"{}"])
def test_what_is_wrong_with_the_information_is_told(tmp_path, cache, content):
    folder = tmp_path / "data"
    shutil.copytree(cache / "whole", folder)
    (path,) = folder.rglob(INFORMATION)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=f"'digits' in {folder}.* is damaged"):
        read_digits(folder)
