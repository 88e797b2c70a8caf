"""Event files that TensorBoard shows."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from keras_bsnn._requirements import extra
from keras_bsnn._types import Array


class Writer:
    """Writes curves, distributions and images for TensorBoard.

    Args:
        folder: The path of the folder for event files. It is created if it is missing.

    Raises:
        ModuleNotFoundError: TensorFlow or tensorboard is not installed. The extra
            `tensorboard` installs them.
    """

    def __init__(self, folder: str | Path) -> None:
        with extra("tensorboard"):
            import tensorboard  # noqa: F401
            import tensorflow as tf

        self.summary = tf.summary
        self.file = tf.summary.create_file_writer(str(folder))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point, unless it is not finite: TensorBoard would drop the curve."""
        if math.isfinite(value):
            with self.file.as_default():
                self.summary.scalar(name, value, step)

    def histogram(self, name: str, values: Array, step: int) -> None:
        """Adds the distribution of the values."""
        with self.file.as_default():
            self.summary.histogram(name, values, step)

    def image(self, name: str, draw: Callable[[IO[bytes]], Any], step: int) -> None:
        """Adds the PNG image that `draw` writes into the file it is called with."""
        import tensorflow as tf

        file = io.BytesIO()
        draw(file)
        image = tf.image.decode_png(file.getvalue(), channels=4)
        with self.file.as_default():
            self.summary.image(name, image[None], step)

    def flush(self) -> None:
        """Writes everything to the disk."""
        self.file.flush()

    def close(self) -> None:
        """Closes the event file."""
        self.file.close()
