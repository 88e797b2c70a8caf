"""Event files that TensorBoard shows."""

import io
import math


class Writer:
    """Writes what TensorBoard's pages show: curves, distributions and images.

    Args:
        folder: of the event files, made if it is not there.

    Raises:
        ImportError: TensorFlow or tensorboard is not installed.
    """

    def __init__(self, folder):
        import tensorflow as tf

        self.summary = tf.summary
        self.file = tf.summary.create_file_writer(str(folder))

    def scalar(self, name, value, step):
        """Unless it is not finite: TensorBoard would show nothing of its curve."""
        if math.isfinite(value):
            with self.file.as_default():
                self.summary.scalar(name, value, step)

    def histogram(self, name, values, step):
        with self.file.as_default():
            self.summary.histogram(name, values, step)

    def image(self, name, draw, step):
        """What `draw` writes into a file that it is given, as a PNG."""
        import tensorflow as tf

        file = io.BytesIO()
        draw(file)
        image = tf.image.decode_png(file.getvalue(), channels=4)
        with self.file.as_default():
            self.summary.image(name, image[None], step)

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()
