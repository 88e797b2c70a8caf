"""The command `keras-bsnn train`: a very deep network, from images to a served model.

In `--out` it leaves `model.keras`, `saved_model/`, `history.csv`, `signals.png` and
`result.json`. A run that was interrupted goes on with the same command and `--resume`.
"""

from keras_bsnn._train._arguments import add_arguments
from keras_bsnn._train._run import run

__all__ = ["add_arguments", "run"]
