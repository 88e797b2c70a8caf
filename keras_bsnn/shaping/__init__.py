"""Makes the signal of any Keras model get through."""

from keras_bsnn.shaping import (  # noqa: F401  they register their maps
    _linear,
    _merging,
    _normalizing,
    _ours,
    _places,
    _pointwise,
)
from keras_bsnn.shaping._kernel_maps import KernelMap, kernel_maps
from keras_bsnn.shaping._registry import register_map
from keras_bsnn.shaping._signal import Signal

__all__ = ["KernelMap", "Signal", "kernel_maps", "register_map"]
