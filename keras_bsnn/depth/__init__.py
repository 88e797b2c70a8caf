"""Depth as an axis: rules of layers, and the loop that runs a stack of them.

`keras_bsnn.layers.DepthStack` is the layer for users. Whoever writes a layer gives it a
`Rule`, if it knows its gradient better than differentiating its `call` does.
"""

from keras_bsnn.depth._rule import Layer, Rule, Step

__all__ = ["Layer", "Rule", "Step"]
