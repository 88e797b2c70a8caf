"""What to change in the inputs of a model, or in how it is compiled."""

import math
from collections.abc import Iterator

import keras

from keras_bsnn import _model, _parts, manifolds
from keras_bsnn._types import Tensor
from keras_bsnn.layers import DepthStack
from keras_bsnn.layers._conv_layer import OrthogonalConv
from keras_bsnn.optimizers import Stiefel, StiefelMuon

DEEP = 100  # orthogonal kernels, from which on the rate of other optimizers is small
MANY = 10  # layers that lose a tenth of a length each, which leave a third of it
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
    if (lossy := _lossy_convolutions(model)) >= MANY:
        yield (
            f"{lossy} orthogonal convolutions have padding='same', and lose what they "
            "move out of the image: padding='circular' or 'bounce' keeps all lengths."
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


def _lossy_convolutions(model):
    """How many orthogonal convolutions read zeros around the image."""
    return sum(math.prod(p.stacked) for p in _parts.parts(model) if _is_lossy(p.layer))


def _is_lossy(layer):
    is_ours = isinstance(layer, OrthogonalConv) and layer.padding == "same"
    return is_ours and layer.kernel_size != layer.strides


def _orthogonal_kernels(model):
    """How many there are, those of each layer of a stack."""
    pairs = ((manifolds.of(v), v.shape) for v in model.trainable_variables)
    return sum(manifold.count(shape) for manifold, shape in pairs if manifold)


def _waits_for_xla(model, layers):
    is_tensorflow = keras.backend.backend() == "tensorflow"
    has_stack = any(isinstance(layer, DepthStack) for layer in layers)
    return is_tensorflow and has_stack and not model.jit_compile
