"""Optimizers that step along the orthogonal matrices."""

import functools
import math

import keras
from keras import ops

from keras_bsnn import _backend
from keras_bsnn._public import public
from keras_bsnn.constraints import is_orthogonal
from keras_bsnn.ops import _check, orthogonal, spectral

KIND = "a Keras optimizer or the name of one"
TINY = 1e-30  # in a mean of squares, so that no gradient means no step


@public
class Stiefel(keras.optimizers.Optimizer):
    """Any Keras optimizer, on the tangent space of the orthogonal kernels.

    The gradient of each kernel with the constraint `keras_bsnn.constraints.Orthogonal`
    is projected to the tangent space; then the wrapped optimizer takes its step, and
    the constraint retracts. Clipping, momentum and moving moments see nothing of the
    normal part, which the retraction would have undone. All other weights, and all
    settings of the wrapped optimizer, are as without `Stiefel`.

    A momentum is a sum of tangent vectors of earlier kernels. To the tangent space of
    the present one they are off by the square of the learning rate, and the retraction,
    a projection itself, takes that off.

    Weight decay does not act on orthogonal kernels: they all have the same norm, and
    the retraction would undo it.

    With `use_ema=True`, the averages that `fit` ends with are retracted, too.

    Args:
        optimizer: a Keras optimizer, or its name.
        name: name of the optimizer.

    Attributes:
        inner_optimizer: the wrapped one; learning rate and iterations are its own.

    Raises:
        ValueError: `optimizer` is not an optimizer.

    Source: the projection of Edelman, Arias, Smith, SIAM J. Matrix Anal. 20 (1998) 303;
    see `keras_bsnn.ops.orthogonal.project_tangent`.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile(keras_bsnn.optimizers.Stiefel(keras.optimizers.Adam(1e-3)), "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, verbose=0)
    """

    def __init__(self, optimizer, name="stiefel"):
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = _optimizer(optimizer)
        self.exclude_from_weight_decay()

    def build(self, var_list):
        if self.built:
            return
        super().build(var_list)
        listed, names = self._excluded_from_decay
        kernels = filter(is_orthogonal, var_list)
        self.inner_optimizer.exclude_from_weight_decay([*listed, *kernels], names)
        self.inner_optimizer.build(var_list)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """As of every Keras optimizer; what was called on the wrapped one is lost."""
        self._excluded_from_decay = (tuple(var_list or ()), tuple(var_names or ()))

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is None:
            variables = self._trainable_variables
        else:
            variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        projected = map(_tangent, grads, variables)
        self.inner_optimizer.apply(list(projected), variables)

    @property
    def variables(self):
        return self._variables + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)
        if self.inner_optimizer.use_ema:
            for kernel in filter(is_orthogonal, var_list):
                kernel.assign(kernel.constraint(kernel))

    def get_config(self):
        optimizer = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {"optimizer": optimizer, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
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
    if gradient is None or not is_orthogonal(variable):
        return gradient
    return orthogonal.project_tangent(_backend.read(variable), gradient)


@public
class StiefelMuon(keras.optimizers.Optimizer):
    """Steps of bounded operator norm; orthogonal kernels turn by the same angle.

    The momentum `M` of a kernel is replaced by its `spectral_sign`, whose singular
    values are all about 1: every direction that the gradients agree on is taken by the
    same step. One learning rate `r` then fits networks of any depth and width:

    - the orthogonal kernels of the model, `depth` in number (those of a `DepthStack`
      count each), turn by an angle of about `r / depth` each,
      `W <- W - (r / depth) spectral_sign(T)`, with `T` the projection of `M` to the
      tangent space; the constraint retracts what is left of order `(r / depth)^2`. As
      such layers keep norms, the features behind them change by at most `1.2 r` of
      their norm, however many there are;
    - another matrix, `(fan_in, fan_out)`, moves by `r` in the operator norm between
      vectors measured by their root mean square: `r sqrt(fan_out / fan_in)`;
    - any other weight moves by `r` in root mean square.

    Weight decay does not act on orthogonal kernels, which all have the same norm.

    Args:
        learning_rate: `r`, a number or a `LearningRateSchedule`. The size of a step
            does not shrink with the gradient, so a schedule should end near 0. For less
            than a hundred steps, 0.1 or 0.2 is better.
        momentum: decay of the moving average of gradients, in [0, 1).
        nesterov: whether to look ahead by one step of the average.
        ns_steps: number of Newton-Schulz steps of `spectral_sign`, an integer from 1
            to 100.
        **kwargs: as of every Keras optimizer.

    Raises:
        ValueError: an argument is out of range.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks"
    (2024); the operator norms of Bernstein and Newhouse, arXiv 2409.20325; tangent
    space and share of depth are this package's.

    Example:

    >>> import keras, keras_bsnn
    >>> model = keras_bsnn.models.bsnn_mlp(depth=10, units=16, input_shape=(4,))
    >>> model.compile(keras_bsnn.optimizers.StiefelMuon(0.05), "mse")
    >>> x, y = keras.random.normal((32, 4)), keras.random.normal((32, 10))
    >>> history = model.fit(x, y, verbose=0)
    """

    def __init__(
        self,
        learning_rate=0.05,
        momentum=0.9,
        nesterov=True,
        ns_steps=4,
        name="stiefel_muon",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        _check.number("momentum", momentum, "a number in [0, 1)", lambda x: 0 <= x < 1)
        _check.boolean("nesterov", nesterov)
        orthogonal.check_steps(ns_steps, "ns_steps")
        self.momentum = momentum
        self.nesterov = nesterov
        self.ns_steps = ns_steps

    def build(self, var_list):
        if self.built:
            return
        super().build(var_list)
        self.momentums = self.add_optimizer_variables(var_list, "momentum")
        kernels = [v for v in var_list if is_orthogonal(v)]
        self._orthogonal = {self._get_variable_index(v) for v in kernels}
        self._depth = sum(math.prod(v.shape[:-2]) for v in kernels)

    def _use_weight_decay(self, variable):
        index = self._get_variable_index(variable)
        return index not in self._orthogonal and super()._use_weight_decay(variable)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        gradient = ops.cast(gradient, variable.dtype)
        momentum = self._averaged(self.momentums[index], gradient)
        if index in self._orthogonal:
            w = _backend.read(variable)
            tangent = orthogonal.project_tangent(w, momentum)
            step = spectral.spectral_sign(tangent, self.ns_steps) / self._depth
        elif len(variable.shape) == 2:
            fan_in, fan_out = variable.shape
            step = spectral.spectral_sign(momentum, self.ns_steps)
            step *= math.sqrt(fan_out / fan_in)
        else:
            step = momentum * ops.rsqrt(ops.mean(ops.square(momentum)) + TINY)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)

    def _averaged(self, average, gradient):
        keep = self.momentum
        self.assign(average, keep * average + (1 - keep) * gradient)
        if self.nesterov:
            return keep * average + (1 - keep) * gradient
        return _backend.read(average)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "ns_steps": self.ns_steps,
        }
