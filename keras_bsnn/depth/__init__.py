"""Depth as an axis: rules of layers, and the loop that runs a stack of them."""

from keras_bsnn.depth._rule import Layer, Rule, Step
from keras_bsnn.depth._stack import DepthStack

__all__ = ["DepthStack", "Layer", "Rule", "Step"]
