"""Of data sets: that the targets are the answers, for streams that are drawn."""

import numpy as np
import pytest
from draws import property_of, rarely
from hypothesis import given
from hypothesis import strategies as st

from keras_bsnn import datasets

seeds = st.integers(0, 2**31 - 1)


def first(data):
    return next(data.as_numpy_iterator())


@property_of(datasets.adding_problem)
@rarely
@given(st.integers(2, 40), st.integers(1, 5), seeds)
def test_the_sum_of_the_marked_numbers_is_the_target(length, size, seed):
    x, y = first(datasets.adding_problem(length, size, seed))
    assert x.shape == (size, length, 2) and y.shape == (size, 1)
    values, marks = x[..., 0], x[..., 1]
    assert np.all((values >= 0) & (values < 1)) and np.all(np.isin(marks, [0, 1]))
    assert np.all(marks[:, : length // 2].sum(axis=1) == 1)
    assert np.all(marks[:, length // 2 :].sum(axis=1) == 1)
    np.testing.assert_allclose((values * marks).sum(axis=1), y[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(
        first(datasets.adding_problem(length, size, seed))[0], x
    )
    other = first(datasets.adding_problem(length, size, (seed + 1) % 2**31))[0]
    assert np.any(other != x)


@property_of(datasets.copy_memory)
@rarely
@given(st.integers(1, 30), st.integers(1, 5), seeds)
def test_what_was_seen_is_to_be_repeated(length, size, seed):
    x, y = first(datasets.copy_memory(length, size, seed))
    assert x.shape == (size, length + 20, 10) and np.all(x.sum(axis=-1) == 1)
    symbols = x.argmax(axis=-1)
    seen, rest = symbols[:, :10], symbols[:, 10:]
    assert np.all((seen >= 1) & (seen <= 8))
    assert np.all(rest[:, length] == 9) and np.all(np.delete(rest, length, 1) == 0)
    assert np.all(y[:, : length + 10] == 0)
    np.testing.assert_array_equal(y[:, length + 10 :], seen)


@pytest.fixture(scope="module")
def digits():
    """All images and labels, as batches of any size must have them."""
    data = datasets.load("digits", "train", 1500, shuffle=False)
    return first(data)


@pytest.mark.slow
@property_of(datasets.load)
@rarely
@given(batch_size=st.integers(100, 1500), seed=seeds)
def test_every_image_comes_once_whatever_the_batches(digits, batch_size, seed):
    batches = datasets.load("digits", "train", batch_size, shuffle=False)
    images, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
    np.testing.assert_array_equal(images, digits[0])
    np.testing.assert_array_equal(labels, digits[1])
    shuffled = [*datasets.load("digits", "train", batch_size, seed=seed)]
    assert {len(x) for x, _ in shuffled} == {batch_size}
    found = {bytes(x) for images, _ in shuffled for x in np.asarray(images)}
    assert found <= {bytes(x) for x in images}
    assert len(found) >= 0.99 * len(shuffled) * batch_size  # few digits are equal
    np.testing.assert_allclose([images.mean(), images.std()], [0, 1], atol=1e-3)


@property_of(datasets.permuted_mnist)
@rarely
@given(permutation=st.none() | seeds | st.permutations(range(64)))
def test_pixels_are_those_of_the_images_in_one_order(digits, permutation):
    data = datasets.permuted_mnist("train", 50, permutation, "digits", shuffle=False)
    pixels, labels = first(data)
    flat = digits[0][:50].reshape(50, 64)
    if permutation is None:
        order = np.arange(64)
    elif isinstance(permutation, int):
        order = np.random.RandomState(permutation).permutation(64)
    else:
        order = permutation
    np.testing.assert_array_equal(pixels[..., 0], flat[:, order])
    np.testing.assert_array_equal(np.sort(pixels[..., 0]), np.sort(flat))
    np.testing.assert_array_equal(labels, digits[1][:50])
