import sys

import numpy as np
import pytest

from keras_bsnn import datasets


def arrays(dataset):
    batches = [(x.numpy(), y.numpy()) for x, y in dataset]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def test_digits_need_no_download():
    train = arrays(datasets.load("digits", "train", 100))
    test = arrays(datasets.load("digits", "test", 99))
    assert train[0].shape == (1500, 8, 8, 1) and train[0].dtype == np.float32
    assert test[1].shape == (297,)
    assert set(train[1]) == set(test[1]) == set(range(10))
    images = np.concatenate([train[0], test[0]])
    assert len(np.unique(images, axis=0)) == 1797, "the splits overlap"
    assert abs(images.mean()) < 0.01 and abs(images.std() - 1) < 0.01


def test_the_images_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    known = load_digits()
    ink = {
        (round(float(image.sum())), label)
        for image, label in zip(known.images, known.target, strict=True)
    }
    images, labels = arrays(datasets.load("digits", "test", 99))
    information = datasets.IMAGE_SETS["digits"]
    pixels = images * information.std[0] + information.mean[0]
    found = {
        (round(float(p)), int(y))
        for p, y in zip(pixels.sum((1, 2, 3)) * 16, labels, strict=True)
    }
    assert found <= {(i + d, y) for i, y in ink for d in (-1, 0, 1)}


def test_training_batches_have_one_shape_and_a_new_order_in_each_epoch():
    dataset = datasets.load("digits", "train", 64, seed=1)
    assert dataset.element_spec[0].shape == (64, 8, 8, 1)
    assert len(dataset) == 1500 // 64
    first, second = arrays(dataset)[1], arrays(dataset)[1]
    assert len(first) == 1500 // 64 * 64
    assert np.any(first != second)
    again = datasets.load("digits", "train", 64, seed=1)
    np.testing.assert_array_equal(arrays(again)[1], first)


def test_evaluation_misses_no_image_and_keeps_the_order():
    dataset = datasets.load("digits", "test", 64)
    first, second = arrays(dataset), arrays(dataset)
    assert len(first[0]) == 297
    np.testing.assert_array_equal(first[1], second[1])
    assert datasets.load("digits", "test", 99).element_spec[0].shape[0] == 99


def test_slices():
    fit = arrays(datasets.load("digits", "train[:90%]", 10, shuffle=False))[0]
    validation = arrays(datasets.load("digits", "train[90%:]", 10, shuffle=False))[0]
    assert (len(fit), len(validation)) == (1350, 150)
    assert len(np.unique(np.concatenate([fit, validation]), axis=0)) == 1500


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_without_tensorflow(split, monkeypatch):
    """They are the same, but for their order."""
    with_it = arrays(datasets.load("digits", split, 99, shuffle=False))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    batches = [*datasets.load("digits", split, 99, shuffle=False)]
    images, labels = (np.concatenate(p) for p in zip(*batches, strict=True))
    assert images.dtype == np.float32 and labels.dtype == np.int32
    assert [len(batch[0]) for batch in batches[:-1]] == [99] * (len(batches) - 1)
    assert np.bincount(labels).tolist() == np.bincount(with_it[1]).tolist()
    expected, found = (np.unique(x, axis=0) for x in (with_it[0], images))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_epochs_and_slices_without_tensorflow(without_tensorflow):
    def labels(data):
        return np.concatenate([y for _, y in data])

    fit = datasets.load("digits", "train[:90%]", 100, seed=1)
    assert len(fit) == 13 and len(labels(fit)) == 1300
    first = labels(fit)
    fit.on_epoch_end()
    assert np.any(labels(fit) != first)
    again = datasets.load("digits", "train[:90%]", 100, seed=1)
    np.testing.assert_array_equal(labels(again), first)
    stream = datasets.load("digits", "train[:90%]", 100, seed=1, start=12)
    np.testing.assert_array_equal(stream[0][1], first[1200:])
    np.testing.assert_array_equal(stream[1][1], fit[0][1])
    ends = [datasets.load("digits", f"train[{ends}]", 5) for ends in ("90%:", "3:8")]
    assert [len(labels(data)) for data in ends] == [150, 5]


def test_what_needs_tensorflow(without_tensorflow):
    for use in (lambda: datasets.load("mnist"), datasets.permuted_mnist):
        with pytest.raises(ModuleNotFoundError, match=r"keras_bsnn\[datasets\]"):
            use()
    with pytest.raises(ValueError, match="`split` must be one of 'digits'"):
        datasets.load("digits", "train[:90")


def test_digits_where_nothing_can_be_written(tmp_path, caplog):
    file = tmp_path / "file"
    file.write_text("in the way")
    dataset = datasets.load("digits", "test", 99, data_dir=str(file / "below"))
    assert len(arrays(dataset)[0]) == 297
    assert "they are written to" in caplog.text


def test_unknown_data_set():
    with pytest.raises(ValueError, match=r"one of.*'digits', 'mnist'.*'emnist'"):
        datasets.load("emnist")


def test_data_that_are_not_there(tmp_path, monkeypatch):
    """As without a network: the error says what, where, and what to do."""
    import tensorflow_datasets as tfds

    def no_network(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(
        tfds.download.DownloadManager, "download_and_extract", no_network
    )
    monkeypatch.setattr(tfds.download.DownloadManager, "download", no_network)
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("mnist", data_dir=str(tmp_path))
    for part in ("mnist/3.0.1", str(tmp_path), "no route to host", "TFDS_DATA_DIR"):
        assert part in str(error.value)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "64", None])
def test_bad_batch_size(batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be an integer from 1"):
        datasets.load("digits", batch_size=batch_size)


def test_a_batch_larger_than_the_data():
    with pytest.raises(ValueError, match="at most the 1500 images"):
        datasets.load("digits", batch_size=1501)


def test_unknown_split():
    with pytest.raises(ValueError, match="valid"):
        datasets.load("digits", "valid")


def test_the_adding_problem():
    first, second = datasets.adding_problem(21, 500, seed=3).take(2)
    x, y = map(np.asarray, first)
    values, marks = x[..., 0], x[..., 1]
    assert x.shape == (500, 21, 2) and y.shape == (500, 1)
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 4 / np.sqrt(12 * values.size)
    np.testing.assert_array_equal(marks[:, :10].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, 10:].sum(axis=1), 1)
    assert np.all(marks.sum(axis=0) > 0)  # each step is marked in some sequence
    np.testing.assert_allclose((values * marks).sum(axis=1), y[:, 0], atol=1e-6)
    # Who predicts the mean; the standard error is below 0.01.
    assert abs(np.mean((y - 1) ** 2) - 1 / 6) < 0.04
    assert np.any(np.asarray(second[0]) != x)
    (again,) = datasets.adding_problem(21, 500, seed=3).take(1)
    np.testing.assert_array_equal(again[0], x)
    (other,) = datasets.adding_problem(21, 500, seed=4).take(1)
    assert np.any(np.asarray(other[0]) != x)


def test_copy_memory():
    ((x, y),) = datasets.copy_memory(30, 200).take(1)
    symbols, y = np.argmax(x, axis=-1), np.asarray(y)
    assert x.shape == (200, 50, 10) and y.shape == (200, 50)
    np.testing.assert_array_equal(np.asarray(x).sum(axis=-1), 1)
    assert set(np.unique(symbols[:, :10])) == {*range(1, 9)}
    np.testing.assert_array_equal(symbols[:, 10:40], 0)
    np.testing.assert_array_equal(symbols[:, 40], 9)
    np.testing.assert_array_equal(symbols[:, 41:], 0)
    np.testing.assert_array_equal(y[:, :40], 0)
    np.testing.assert_array_equal(y[:, 40:], symbols[:, :10])


def test_permuted_images():
    ((images, labels),) = datasets.load("digits", "test", 297).take(1)
    rows = np.asarray(images).reshape(297, 64, 1)
    order = np.random.RandomState(92916).permutation(64)
    for permutation, expected in (
        (92916, rows[:, order]),
        (order[::-1], rows[:, order[::-1]]),
        (None, rows),
    ):
        ((pixels, same),) = datasets.permuted_mnist(
            "test", 297, permutation, name="digits"
        ).take(1)
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(same, labels)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: datasets.adding_problem(1), "`length` must be an integer from 2"),
        (lambda: datasets.copy_memory(0), "`length` must be an integer from 1"),
        (lambda: datasets.copy_memory(5, 0), "`batch_size` must be an integer from 1"),
        (
            lambda: datasets.permuted_mnist(permutation=[1, 1], name="digits"),
            "`permutation` must be a seed",
        ),
    ],
)
def test_wrong_sequences(call, words):
    with pytest.raises(ValueError, match=words):
        call()
