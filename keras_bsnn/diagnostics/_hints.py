"""What to change in the inputs of a model, or in how it is compiled."""

from collections.abc import Iterator

import keras

from keras_bsnn import _model, manifolds
from keras_bsnn._types import Tensor
from keras_bsnn.layers import DepthStack
from keras_bsnn.optimizers import Stiefel, StiefelMuon

DEEP = 100  # orthogonal kernels, from which on the rate of other optimizers is small
SHAPES = (keras.layers.Flatten, keras.layers.Reshape)
RESCALING = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Embedding)


def hints(model: keras.Model, x: Tensor) -> Iterator[str]:
    """Yields a sentence for each thing to change, for a compiled model or not."""
    layers = list(_model.leaves(model))
    first = next((x for x in layers if not isinstance(x, SHAPES)), None)
    if _is_of_bytes(x) and not isinstance(first, RESCALING):
        yield (
            "The inputs are numbers from 0 to 255: center them, as "
            "keras.layers.Rescaling(1 / 127.5, offset=-1) does."
        )
    if not model.compiled:
        return
    kernels = _orthogonal_kernels(model)
    if kernels >= DEEP and not isinstance(model.optimizer, (Stiefel, StiefelMuon)):
        yield (
            f"{type(model.optimizer).__name__} moves all {kernels} orthogonal kernels "
            "by as much as one, so that its best learning rate falls with depth: "
            "keras_bsnn.optimizers.StiefelMuon(0.05) fits any."
        )
    if _waits_for_xla(model, layers):
        yield "To train long, compile with jit_compile=True: steps take half the time."


def _is_of_bytes(x):
    (first, *_) = map(keras.ops.convert_to_numpy, keras.tree.flatten(x))
    return first.dtype == "uint8" or (
        first.dtype.kind == "f" and first.min() >= 0 and 100 < first.max() <= 255
    )


def _orthogonal_kernels(model):
    """How many there are, those of each layer of a stack."""
    pairs = ((manifolds.of(v), v.shape) for v in model.trainable_variables)
    return sum(manifold.count(shape) for manifold, shape in pairs if manifold)


def _waits_for_xla(model, layers):
    is_tensorflow = keras.backend.backend() == "tensorflow"
    has_stack = any(isinstance(layer, DepthStack) for layer in layers)
    return is_tensorflow and has_stack and not model.jit_compile
