"""A convolution whose outputs are normalized over the batch and all places."""

from typing import Any

import keras

from keras_bsnn import _backend
from keras_bsnn._types import Activation, Identifier, Shape, Tensor
from keras_bsnn.layers._batch_normalized import BatchNormalized
from keras_bsnn.layers._matrix_conv import MatrixConv


@keras.saving.register_keras_serializable(package="keras_bsnn")
class BatchNormConv2D(BatchNormalized, MatrixConv):
    """TODO"""

    rank = 2

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int] = 3,
        strides: int | tuple[int, int] = 1,
        padding: str = "circular",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = 1,
        groups: int = 1,
        activation: Activation = None,
        gain: float | Identifier = 1.0,
        center: bool = True,
        scale_by: str = "std",
        affine: bool = False,
        shrinkage: float | Identifier = 0.0,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        kernel_initializer: Identifier = None,
        kernel_regularizer: Identifier = None,
        kernel_constraint: Identifier = None,
        implementation: str = "shifts",
        **kwargs: Any,
    ):
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            gain=gain,
            center=center,
            scale_by=scale_by,
            affine=affine,
            shrinkage=shrinkage,
            momentum=momentum,
            epsilon=epsilon,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
            implementation=implementation,
            **kwargs,
        )

    @property
    def axis(self) -> int:
        """The axis of the channels."""
        return self._channel_axis

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.add_statistics(self.filters)

    def project(self, inputs: Tensor) -> Tensor:
        """The convolution in float32 or wider, before normalization."""
        return _backend.at_least_float32(self.linear(inputs))
