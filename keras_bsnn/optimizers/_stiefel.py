"""Any optimizer, on the tangent space of the orthogonal matrices."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from typing_extensions import Self

from keras_bsnn import _backend, manifolds
from keras_bsnn._types import Config, Tensor, Variables
from keras_bsnn.ops import _check
from keras_bsnn.optimizers._per_layer import PerLayer, is_elementwise

KIND = "a Keras optimizer or the name of one"


@keras.saving.register_keras_serializable(package="keras_bsnn")
class Stiefel(keras.optimizers.Optimizer):
    """Any Keras optimizer, on the tangent space of the orthogonal kernels.

    The gradient of each kernel with the constraint `keras_bsnn.constraints.Orthogonal`
    is projected to the tangent space; then the wrapped optimizer takes its step, and
    the constraint retracts. Clipping, momentum and moving moments do not see the normal
    part, which the retraction would undo. All other weights, and all settings of the
    wrapped optimizer, are as without `Stiefel`.

    The layers of a `DepthStack` are stepped as they would be alone. For the optimizers
    of Keras that treat each entry of a weight separately (`SGD`, `Adam` and similar),
    this is always so, except that `clipnorm` then takes the norm of all layers of a
    stack together. Others look at the shape or the norm of a weight: `Muon`, `Lamb`,
    `Adafactor`, and custom optimizers. `Stiefel` runs these once for each layer, in one
    loop, with the `clipnorm` of each layer. Without `Stiefel`, `Muon` takes the kernels
    of a stack for tensors of three axes, which it leaves to AdamW, and the biases for a
    matrix: wrap it even if no kernel is orthogonal, or use `StiefelMuon`.

    A momentum is a sum of tangent vectors of earlier kernels. They deviate from the
    present tangent space by the square of the learning rate, which the retraction, a
    projection itself, removes.

    Weight decay does not act on orthogonal kernels: they all have the same norm, and
    the retraction would undo it.

    With `use_ema=True`, the averages that `fit` ends with are retracted, too.

    Args:
        optimizer: A Keras optimizer, or its name.
        name: String, the name of this optimizer. Defaults to `"stiefel"`.

    Attributes:
        inner_optimizer: The wrapped optimizer, which keeps the learning rate and the
            iterations.

    Raises:
        ValueError: If `optimizer` is not an optimizer; or, when it is built on a stack,
            if it is not one of those that treat each entry separately and has an
            `apply` of its own, or an `adam_weight_decay` other than its `weight_decay`.

    Source: the projection of Edelman, Arias, Smith, SIAM J. Matrix Anal. 20 (1998) 303;
    see `keras_bsnn.ops.orthogonal.project_tangent`.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile(keras_bsnn.optimizers.Stiefel(keras.optimizers.Adam(1e-3)), "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, verbose=0)
    """

    def __init__(
        self, optimizer: keras.optimizers.Optimizer | str, name: str = "stiefel"
    ):
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = _optimizer(optimizer)
        self._stepper = self.inner_optimizer
        self.exclude_from_weight_decay()

    def build(self, var_list: Variables) -> None:
        if self.built:
            return
        super().build(var_list)
        is_stacked = any(map(manifolds.stacked_axes, var_list))
        if is_stacked and not is_elementwise(self.inner_optimizer):
            self._stepper = PerLayer(self.inner_optimizer)
        listed, names = self._excluded_from_decay
        kernels = [v for v, _ in manifolds.constrained(var_list)]
        self._stepper.exclude_from_weight_decay([*listed, *kernels], names)
        self._stepper.build(var_list)

    def exclude_from_weight_decay(
        self,
        var_list: Variables | None = None,
        var_names: Iterable[str] | None = None,
    ) -> None:
        """Excludes variables from weight decay, as every Keras optimizer does.

        Call it before the optimizer is built. Exclusions that the wrapped optimizer was
        told have no effect.

        Args:
            var_list: List of variables to exclude. Defaults to `None`.
            var_names: List of strings: variables are excluded whose names have one of
                them as a part. Defaults to `None`.
        """
        self._excluded_from_decay = (tuple(var_list or ()), tuple(var_names or ()))

    def apply(
        self,
        grads: Iterable[Tensor],
        trainable_variables: Iterable[keras.Variable] | None = None,
    ) -> None:
        if trainable_variables is None:
            variables = self._trainable_variables
        else:
            variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        projected = map(_tangent, grads, variables)
        self._stepper.apply(list(projected), variables)

    @property
    def variables(self) -> Variables:
        return self._variables + self._stepper.variables

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> keras.Variable:
        return self.inner_optimizer.iterations

    def scale_loss(self, loss: Tensor) -> Tensor:
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Variables) -> None:
        self._stepper.finalize_variable_values(var_list)
        if self.inner_optimizer.use_ema:
            for kernel, _ in manifolds.constrained(var_list):
                kernel.assign(kernel.constraint(kernel))

    def get_config(self) -> Config:
        optimizer = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"optimizer": optimizer, "name": self.name}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        deserialize = functools.partial(
            keras.saving.deserialize_keras_object, custom_objects=custom_objects
        )
        return cls(**_check.deserialized(config, "optimizer", KIND, deserialize))


def _optimizer(identifier):
    found = _check.interpreted("optimizer", KIND, keras.optimizers.get, identifier)
    if not isinstance(found, keras.optimizers.Optimizer):
        raise _check.refusal("optimizer", KIND, identifier)
    return found


def _tangent(gradient, variable):
    manifold = manifolds.of(variable)
    if gradient is None or manifold is None:
        return gradient
    return manifold.project(*map(_backend.read, (variable, gradient)))
