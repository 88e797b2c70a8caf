"""scikit-learn's 1,797 handwritten digits of 8x8 pixels, as arrays."""

import functools

import numpy as np

from keras_bsnn._requirements import extra
from keras_bsnn._types import Array


@functools.cache
def digits() -> tuple[Array, Array, dict[str, Array]]:
    """Images of bytes, labels, and the indices of each split."""
    with extra("digits"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    digits = load_digits()
    # 0...16 -> 0...255, so that pixels are bytes as in the other image sets.
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(
        np.arange(len(images)),
        test_size=297,
        random_state=0,
        stratify=digits.target,
    )
    return images, digits.target, {"train": train, "test": test}
