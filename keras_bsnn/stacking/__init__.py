"""Models of others as loops over their layers."""

from keras_bsnn.stacking._stacked import copy_state, stack_layers, unstack

__all__ = ["copy_state", "stack_layers", "unstack"]
