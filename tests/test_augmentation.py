"""Random shifts and mirror images of training images."""

import sys
import types

import keras
import numpy as np
import pytest

from keras_bsnn import datasets
from keras_bsnn.datasets import _builders

MIRRORED = {"cifar10", "cifar100", "fashion_mnist"}
COUNT = 40


class Fake:
    """A builder of images whose bytes say their row, column and number."""

    def __init__(self, shape):
        height, width, channels = shape
        rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
        each = [rows, columns, np.ones_like(rows)][-channels:]
        if channels == 1:
            each = [8 * rows + columns]
        images = np.tile(np.stack(each, -1), (COUNT, 1, 1, 1))
        if channels == 3:
            images[..., 2] = np.arange(1, COUNT + 1)[:, None, None]
        self.images = images.astype("uint8")
        split = types.SimpleNamespace(num_examples=COUNT)
        self.info = types.SimpleNamespace(splits={"train": split, "test": split})

    def as_dataset(self, split, as_supervised):
        import tensorflow as tf

        labels = np.arange(1, COUNT + 1)
        return tf.data.Dataset.from_tensor_slices((self.images, labels))


@pytest.fixture
def fake(monkeypatch):
    """Has image sets be fakes; gives `load` with bytes as a result."""

    def readable(name, data_dir):
        return Fake(datasets.IMAGE_SETS[name].shape)

    monkeypatch.setattr(_builders, "readable", readable)

    def load(name, count=None, **kwargs):
        facts = datasets.IMAGE_SETS[name]
        data = datasets.load(name, batch_size=10, **kwargs)
        batches = [*data.take(count)] if count else [*data]
        images, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
        return np.rint((images * facts.std + facts.mean) * 255).astype(int), labels

    return load


def shifts_of(images, size):
    """How far each image was shifted down and right, and whether it was mirrored.

    They are those of an image of rows and columns, counted from 1, and of zeros where
    nothing came in.
    """
    found = []
    for image in images:
        rows, columns = image[..., 0], image[..., 1]
        middle = size // 2
        down = middle + 1 - rows[middle, middle]
        is_mirrored = columns[middle, middle + 1] < columns[middle, middle]
        plain = columns[:, ::-1] if is_mirrored else columns
        right = middle + 1 - plain[middle, middle]
        expected = 1 + np.arange(size) - down
        inside = (expected >= 1) & (expected <= size)
        across = 1 + np.arange(size) - right
        beside = (across >= 1) & (across <= size)
        both = inside[:, None] & beside
        np.testing.assert_array_equal(
            rows[:, :: -1 if is_mirrored else 1], both * expected[:, None]
        )
        np.testing.assert_array_equal(plain, both * across)
        found.append((down, right, is_mirrored))
    return np.array(found)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_shifts_and_mirror_images_of_cifar(fake, name):
    images, labels = fake(name, 100, seed=0, start=0, augment=True)
    assert images.shape == (1000, 32, 32, 3)
    np.testing.assert_array_equal(images.max(axis=(1, 2))[:, 2], labels)
    down, right, mirrored = shifts_of(images, 32).T
    for shift in (down, right):
        assert set(shift) == {*range(-4, 5)}
        counts = np.bincount(shift + 4, minlength=9)
        assert np.all(abs(counts - 1000 / 9) < 5 * np.sqrt(1000 / 9))
    assert abs(mirrored.mean() - 0.5) < 0.08
    # They are drawn separately.
    correlations = np.corrcoef([down, right, mirrored])
    assert abs(correlations - np.eye(3)).max() < 0.15


@pytest.mark.parametrize("name", [*datasets.IMAGE_SETS])
def test_which_sets_have_mirror_images(fake, name):
    assert datasets.IMAGE_SETS[name].flips == (name in MIRRORED)
    if name in ("cifar10", "cifar100"):
        return
    images, _ = fake(name, augment=True, seed=0)
    size = images.shape[1]
    middle = images[:, size // 2, size // 2 - 1 : size // 2 + 1, 0]
    is_mirrored = middle[:, 0] > middle[:, 1]
    assert is_mirrored.any() == (name in MIRRORED) and not is_mirrored.all()
    corners = {tuple(image[size // 2, size // 2]) for image in images}
    assert len(corners) >= (3 if size == 8 else 7)


def test_an_unbroken_stream_and_a_resumed_one_are_the_same(fake):
    whole = fake("cifar10", 10, seed=3, start=0, augment=True)
    rest = fake("cifar10", 4, seed=3, start=6, augment=True)
    for first, second in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(first[60:], second)
    other = fake("cifar10", 10, seed=4, start=0, augment=True)
    assert np.any(shifts_of(other[0], 32) != shifts_of(whole[0], 32))
    plain = fake("cifar10", 10, seed=3, start=0)
    np.testing.assert_array_equal(plain[1], whole[1])  # the order is that without it
    assert not shifts_of(plain[0], 32).any()


def test_each_epoch_draws_anew(fake):
    def epochs():
        keras.utils.set_random_seed(0)
        data = datasets.load("cifar10", batch_size=10, seed=3, augment=True)
        assert len(data) == COUNT // 10
        assert data.element_spec[0].shape == (10, 32, 32, 3)
        return [np.concatenate([np.asarray(x) for x, _ in data]) for _ in range(2)]

    first, second = epochs()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(epochs(), [first, second])
    one, other = (fake("cifar10", augment=True)[0] for _ in range(2))
    assert not np.array_equal(shifts_of(one, 32), shifts_of(other, 32))


def test_digits_without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    facts = datasets.IMAGE_SETS["digits"]
    black = -facts.mean[0] / facts.std[0]

    def batches(start, count, **kwargs):
        data = datasets.load("digits", "train", 100, seed=1, start=start, **kwargs)
        return [data[i] for i in range(count)]

    plain, found = batches(0, 20), batches(0, 20, augment=True)
    again = batches(15, 5, augment=True)
    for (x, y), (same, label) in zip(found[15:], again, strict=True):
        np.testing.assert_array_equal(x, same)
        np.testing.assert_array_equal(y, label)
    seen = set()
    for (x, y), (moved, label) in zip(plain, found, strict=True):
        assert moved.shape == (100, 8, 8, 1) and moved.dtype == np.float32
        np.testing.assert_array_equal(y, label)
        around = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=black)
        for i in range(100):
            shifts = [
                (r, c)
                for r in range(3)
                for c in range(3)
                if np.allclose(around[i, r : r + 8, c : c + 8], moved[i], atol=1e-6)
            ]
            assert shifts
            seen.update(shifts if len(shifts) == 1 else [])
    assert len(seen) == 9
    epoch = datasets.load("digits", "train", 100, seed=1, augment=True)
    np.testing.assert_array_equal(epoch[0][0], found[0][0])
    epoch.on_epoch_end()
    np.testing.assert_array_equal(epoch[0][0], found[15][0])


def test_mirror_images_without_tensorflow():
    from keras_bsnn.datasets import _augment

    images = np.tile(Fake((32, 32, 3)).images, (20, 1, 1, 1)).astype("float32")
    black = np.array([0, 0, -7])
    found = _augment.moved(images, [1, 2, 3], flips=True, black=black)
    down, right, mirrored = shifts_of(found.astype(int), 32).T
    assert set(down) == set(right) == {*range(-4, 5)}
    assert abs(mirrored.mean() - 0.5) < 0.1
    outside = found[..., 0] == 0
    assert outside.any() and set(found[..., 2][outside]) == {-7}
    assert found[..., 2][~outside].min() == 1
    same = _augment.moved(images, [1, 2, 3], flips=True, black=black)
    np.testing.assert_array_equal(same, found)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"split": "test"}, "`augment` must be False where images are not shuffled"),
        ({"shuffle": False}, "`augment` must be False where images are not shuffled"),
        ({"augment": "crop"}, "`augment` must be.*'crop'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("digits", **{"augment": True, **kwargs})
