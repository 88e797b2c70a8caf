"""A training step of one convolution: plain, ours, and other orthogonal ones.

    python benchmarks/convolution.py --page docs/results/convolution.md

All map images of as many channels as they have filters, with a kernel of 3 x 3,
circular padding and a bias, and are trained to random targets by SGD with momentum.
What enters is multiplied by a trained number for each channel, so that a step has the
gradient with respect to the inputs in it, as it has inside of a network. Each contender
runs in a process of its own, in turn with the others, and is timed after `--warm-up`
steps. Those of PyTorch need the extra `peers`.

The last column is the largest `|s - 1|` of the singular values `s` of the convolution
after the last step. They are found at all spatial frequencies of an image.
"""

import functools
import os

import _workers
import numpy as np
from _workers import TORCH, Contender, Training
from runner import Experiment, columns

RATE, MOMENTUM = 1.0, 0.9  # the mean over all outputs makes small gradients
KERNEL_SIZE = 3
PEERS_WARM_UP = 5  # steps: what those of PyTorch cost does not change afterwards
MODES = {
    "TensorFlow": ("tensorflow", False),
    "TensorFlow XLA": ("tensorflow", True),
    "JAX": ("jax", True),
}
PLAIN, PLAIN_TORCH = "keras Conv2D", "torch.nn.Conv2d"
REFERENCE = f"{PLAIN}, TensorFlow"


def run(args, channels, size, batch_size):
    load = os.getloadavg()[0]  # of what else the machine did
    rows = _workers.compare(
        *(__file__, CONTENDERS, args, ["largest_error"]),
        **{"channels": channels, "size": size, "batch_size": batch_size},
        warm_up=args.warm_up,
    )
    steps = {row["contender"]: row.get("step_seconds") for row in rows}

    def ratio(row, name):
        known = steps[row["contender"]] and steps.get(name)
        return steps[row["contender"]] / steps[name] if known else None

    for row in rows:
        *_, mode = row["contender"].split(", ")
        plain = f"{PLAIN}, {mode}" if mode in MODES else PLAIN_TORCH
        row |= {"load_before": load, "ratio": ratio(row, REFERENCE)}
        row["ratio_to_plain"] = ratio(row, plain)
    return rows


def step(row):
    if "step_seconds" not in row:
        return row["failed"]
    return f"{1e3 * row['step_seconds']:.1f} ms"


def spread(row):
    low, high = row.get("spread_seconds", (0, 0))
    return f"{1e3 * low:.1f} to {1e3 * high:.1f}" if high else ""


def times(key):
    return lambda row: f"{row[key]:.2f}" if row.get(key) else ""


def error(row):
    return f"{row['largest_error']:.0e}" if "largest_error" in row else ""


TABLE = {
    "": "{contender}",
    "images": "{batch_size} x {size} x {size} x {channels}",
    **{"step": step, "of the processes": spread},
    f"against {PLAIN}, TensorFlow": times("ratio"),
    "against the plain one of the same": times("ratio_to_plain"),
    "largest error": error,
}


# What the workers build.


def data(case):
    """A batch of images and of targets."""
    shape = (2, case.batch_size, case.size, case.size, case.channels)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def singular_value_error(kernel, size):
    """The largest distance to 1 of the singular values of a circular convolution.

    Args:
        kernel: Array of shape `(height, width, channels, filters)`.
        size: Integer, the height and width of the images.
    """
    kernel = np.asarray(kernel, "float64")
    transform = np.fft.fft2(kernel, (size, size), axes=(0, 1))
    return float(np.abs(np.linalg.svd(transform, compute_uv=False) - 1).max())


def keras_model(case, implementation=None, jit=True):
    """Ours with an implementation, or the plain convolution of Keras."""
    import keras
    from keras import ops

    from keras_bsnn.layers import OrthogonalConv2D

    class Scale(keras.layers.Layer):
        def build(self, input_shape):
            self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones")

        def call(self, inputs):
            return inputs * self.scale

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((case.size, case.size, case.channels))
    x = Scale()(x)
    if implementation:
        layer = OrthogonalConv2D(
            case.channels, KERNEL_SIZE, implementation=implementation
        )
    else:
        layer = keras.layers.Conv2D(case.channels, KERNEL_SIZE, padding="valid")
        x = ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1)
        x = ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2)
    model = keras.Model(inputs, layer(x))
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), "mse", jit_compile=jit)
    batches = np.tile(data(case), (1, case.warm_up + case.steps + 1, 1, 1, 1))
    count = case.warm_up * case.batch_size
    settings = {"batch_size": case.batch_size, "shuffle": False, "verbose": 0}
    model.fit(*batches[:, :count], **settings)

    def report():
        kernel = layer.explicit_kernel() if implementation else layer.kernel
        kernel = ops.convert_to_numpy(kernel)
        return {"largest_error": singular_value_error(kernel, case.size)}

    return Training(model=model, data=batches[:, count:], report=report)


def torch_module(case, make):
    """A convolution of PyTorch.

    Args:
        case: the size.
        make: function of PyTorch and the number of channels; a module.
    """
    import torch

    torch.manual_seed(0)
    convolution = make(torch, case.channels)
    scale = torch.nn.Parameter(torch.ones(case.channels, 1, 1))
    weights = [*convolution.parameters(), scale]
    optimizer = torch.optim.SGD(weights, RATE, MOMENTUM)
    x, y = (torch.from_numpy(a).movedim(-1, 1).contiguous() for a in data(case))

    def train():
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(convolution(scale * x), y).backward()
        optimizer.step()

    def report():
        """Once, at the end: NumPy's threads would be in the way of PyTorch's."""
        kernel = convolution.weight.detach().permute(2, 3, 1, 0).numpy()
        return {"largest_error": singular_value_error(kernel, case.size)}

    for _ in range(min(case.warm_up, PEERS_WARM_UP)):
        train()
    return Training(train, report=report)


def plain_convolution(torch, channels):
    return torch.nn.Conv2d(
        *(channels, channels, KERNEL_SIZE), padding="same", padding_mode="circular"
    )


def parametrized(torch, channels, orthogonal_map=None):
    """Of the reshaped kernel (RKO), which makes no orthogonal convolution."""
    functional = torch.nn.functional

    class Reshaped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            matrix = torch.nn.Linear(channels * KERNEL_SIZE**2, channels)
            orthogonal = torch.nn.utils.parametrizations.orthogonal
            self.matrix = orthogonal(matrix, "weight", orthogonal_map)

        @property
        def weight(self):
            shape = (channels, channels, KERNEL_SIZE, KERNEL_SIZE)
            return self.matrix.weight.reshape(shape) / KERNEL_SIZE

        def forward(self, x):
            x = functional.pad(x, 4 * (KERNEL_SIZE // 2,), "circular")
            return functional.conv2d(x, self.weight, self.matrix.bias)

    return Reshaped()


def adaptive(torch, channels):
    from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d

    return AdaptiveOrthoConv2d(
        channels, channels, KERNEL_SIZE, padding="same", padding_mode="circular"
    )


def of_torch(make, **kwargs):
    make = functools.partial(make, **kwargs)
    return Contender("torch", functools.partial(torch_module, make=make), TORCH)


def of_keras(kind, implementation=None):
    """Contenders of Keras, one for each way to run it."""
    return {
        f"{kind}, {mode}": Contender(
            backend,
            functools.partial(keras_model, implementation=implementation, jit=jit),
        )
        for mode, (backend, jit) in MODES.items()
    }


CONTENDERS = {
    **of_keras(PLAIN),
    **of_keras("ours", "shifts"),
    **of_keras("ours as a convolution", "conv"),
    PLAIN_TORCH: of_torch(plain_convolution),
    "orthogonium AOC": of_torch(adaptive),
    **{
        f"torch parametrizations.orthogonal, {name}": of_torch(
            parametrized, orthogonal_map=name
        )
        for name in ("householder", "cayley")
    },
}

EXPERIMENT = Experiment(
    __file__,
    run,
    columns(TABLE),
    rows={"channels": "channels", "size": "size", "batch_size": "batch_size"},
    options={
        **_workers.options(CONTENDERS, seconds=10.0),
        **{"channels": 64, "size": 16, "batch_size": 32},
        **{"steps": 40, "warm_up": 20},
    },
)

if __name__ == "__main__":
    _workers.main(EXPERIMENT, CONTENDERS)
