"""scikit-learn's 1,797 handwritten digits of 8x8 pixels, as a tfds builder."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from keras_bsnn._requirements import extra
from keras_bsnn._types import Array


class Digits(tfds.core.GeneratorBasedBuilder):
    """Real images of digits, which come with scikit-learn and need no download."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        with extra("datasets"):
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
        return {
            name: self._generate_examples(images, digits.target, indices)
            for name, indices in (("train", train), ("test", test))
        }

    def _generate_examples(
        self, images: Array, labels: Array, indices: Array
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            yield int(index), {"image": images[index], "label": int(labels[index])}
