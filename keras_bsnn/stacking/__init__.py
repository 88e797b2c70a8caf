"""Models of others as loops over their layers."""

from keras_bsnn.stacking._stacked import StackedModel, stack_layers, unstack

__all__ = ["StackedModel", "stack_layers", "unstack"]
