"""scikit-learn's handwritten digits, as a tfds builder."""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from keras_bsnn._types import Array
from keras_bsnn.datasets import _scikit_learn


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
        images, labels, splits = _scikit_learn.digits()
        return {
            name: self._generate_examples(images, labels, indices)
            for name, indices in splits.items()
        }

    def _generate_examples(
        self, images: Array, labels: Array, indices: Array
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            yield int(index), {"image": images[index], "label": int(labels[index])}
