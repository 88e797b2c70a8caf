"""What the tests of models look at."""

from keras_bsnn.layers import DepthStack


def layers_of(model, kind):
    """The layers of a class, also those in a stack."""
    found = []
    for layer in model.layers:
        if isinstance(layer, DepthStack):
            found += [layer.layer_at(i) for i in range(layer.depth)]
        elif isinstance(layer, kind):
            found.append(layer)
    return found
