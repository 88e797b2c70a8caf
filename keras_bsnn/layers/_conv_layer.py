"""What orthogonal convolutions of any number of axes of space share."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bsnn import _facts, _steps, activations
from keras_bsnn._types import Activation, Config, Identifier, Shape, Tensor
from keras_bsnn.depth import Layer, Rule
from keras_bsnn.layers import _conv_export, _identifiers
from keras_bsnn.layers._matrix_conv import MatrixConv
from keras_bsnn.ops import _check


class OrthogonalConv(MatrixConv):
    """A convolution whose weights are orthogonal matrices, a bias and an activation.

    A subclass says how many axes of space there are, `rank`, and whether it is the
    transpose.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...] = 3,
        strides: int | tuple[int, ...] = 1,
        padding: str = "circular",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        groups: int = 1,
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Identifier = None,
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        activity_regularizer: Identifier = None,
        kernel_constraint: Identifier = "orthogonal",
        bias_constraint: Identifier = None,
        implementation: str = "shifts",
        **kwargs: Any,
    ):
        use_bias = _check.boolean("use_bias", use_bias)
        regularizer = _identifiers.get("activity_regularizer", activity_regularizer)
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
            implementation=implementation,
            activity_regularizer=regularizer,
            **kwargs,
        )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = _identifiers.get("bias_initializer", bias_initializer)
        self.bias_regularizer = _identifiers.get("bias_regularizer", bias_regularizer)
        self.bias_constraint = _identifiers.get("bias_constraint", bias_constraint)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs: Tensor) -> Tensor:
        if self.implementation == "conv":
            return self.activation(self._biased(self.linear(inputs)))
        self.check_inputs(inputs)
        return self._rule().apply(inputs, self.depth_tensors())

    def _biased(self, x):
        if not self.use_bias:
            return x
        shape = [1] * (self.rank + 2)
        shape[self._channel_axis] = -1
        return x + ops.reshape(ops.cast(self.bias, self.compute_dtype), shape)

    def depth_rule(self) -> Rule | None:
        """The rule that `DepthStack` runs, `None` to have it made from `call`."""
        has_own = self.implementation == "shifts"
        is_known = has_own and _facts.is_pointwise(self.activation)
        return self._rule() if is_known else None

    def _rule(self):
        return self._rule_of(self.activation)

    def depth_tensors(self) -> Layer:
        """The variables of the layer, as the rule takes them."""
        return Layer([*self.kernels, self.bias] if self.use_bias else self.kernels)

    def export_steps(self) -> list:
        """What the layer computes in evaluation, for `keras_bsnn.export`."""
        bias = np.zeros(self.filters)
        if self.use_bias:
            bias = _steps.rounded(ops.convert_to_numpy(self.bias))
        return _conv_export.of_images(self, [self._convolved(bias)])

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": serialize(self.bias_initializer),
            "bias_regularizer": serialize(self.bias_regularizer),
            "activity_regularizer": serialize(self.activity_regularizer),
            "bias_constraint": serialize(self.bias_constraint),
        }
