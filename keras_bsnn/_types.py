"""Names for the kinds of arguments and results that recur in signatures.

Keras has no type stubs, so that a type checker takes its classes for `Any`; the names
say what is meant.
"""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

import keras
import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
"""An array of NumPy."""

Tensor: TypeAlias = Any
"""A tensor of the backend, a `keras.KerasTensor`, or what converts to a tensor."""

Shape: TypeAlias = tuple[int | None, ...]
"""A shape; `None` stands for a size that is not known yet."""

Config: TypeAlias = dict[str, Any]
"""What `get_config` returns: the arguments of the constructor, as JSON has them."""

Pointwise: TypeAlias = Callable[[Any], Any]
"""A function that acts on each entry of an array or tensor alone."""

Activation: TypeAlias = str | Pointwise | Config | None
"""The name of an activation, a callable, a serialized one, or `None`: the identity."""

Identifier: TypeAlias = str | Callable[..., Any] | Config | None
"""An initializer, regularizer or constraint: its name, the object, or its config."""

Loss: TypeAlias = str | Callable[..., Any] | None
"""The name of a loss, a function of targets and outputs, or `None`."""

Retraction: TypeAlias = str | Callable[[Any], Any]
"""The name of a retraction of `keras_bsnn.ops.orthogonal`, or a callable."""

Variables: TypeAlias = list[keras.Variable]
"""Variables of a model or of an optimizer."""

File: TypeAlias = str | Path | IO[bytes]
"""The path of a file to write, or an open binary file."""
