"""Models of others as loops over their layers."""

from keras_bsnn.stacking._stacked import stack_layers, unstack

__all__ = ["stack_layers", "unstack"]
