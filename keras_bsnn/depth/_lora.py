"""Low-rank adapters of the kernels of a block: which layers have one, and adding them.

A block that was made from a configuration does not know which of its layers were given
adapters after they were built: the stack keeps that for it.
"""

from keras_bsnn.ops import _check


def adaptable(block):
    """The layers of a block that may have an adapter, in a fixed order."""
    return [x for x in block._flatten_layers() if hasattr(x, "lora_enabled")]


def adapters(block):
    """A list of `[index in adaptable, rank, alpha]` of those that have an adapter."""
    return [
        [i, layer.lora_rank, getattr(layer, "lora_alpha", layer.lora_rank)]
        for i, layer in enumerate(adaptable(block))
        if layer.lora_enabled
    ]


def adapt(block, adapters):
    """Adds adapters to layers of a built block that have none.

    Args:
        block: the block.
        adapters: as of `adapters`.
    """
    if not adapters:
        return
    layers = adaptable(block)
    for i, rank, alpha in adapters:
        if not layers[i].lora_enabled:
            layers[i].enable_lora(rank)
        layers[i].lora_alpha = alpha


def chosen(block, names):
    """Those of a block that are named, or all.

    Raises:
        ValueError: there are none.
    """
    layers = adaptable(block)
    known = sorted({layer.name for layer in layers})
    if not layers:
        raise ValueError(
            f"`enable_lora` needs a block with layers that have it: {block.name!r} has "
            "none."
        )
    for name in names or ():
        if name not in known:
            kind = f"names of layers of {block.name!r}, of {known}"
            raise _check.refusal("target_layer_names", kind, name, known=known)
    layers = [x for x in layers if names is None or x.name in names]
    for layer in layers:
        constraint = getattr(layer, "kernel_constraint", None)
        if layer.lora_enabled or constraint:
            why = "has a constraint" if constraint else "has an adapter already"
            raise ValueError(f"`enable_lora` is not for {layer.name!r}, which {why}.")
    return layers
