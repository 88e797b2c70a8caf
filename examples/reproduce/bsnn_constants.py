"""The constants of Gaussian-Poincaré normalization, as the table of a page.

    python examples/reproduce/bsnn_constants.py

For each function: the scale, both shifts, and the slope of the length map at each.
"""

import keras
from _bsnn import gelu_by_sigmoid, leaky_relu

from keras_bsnn.activations import GaussianPoincare

FUNCTIONS = {
    **{"tanh": "tanh", "relu": "relu", "leaky relu, 0.01": leaky_relu},
    **{"elu": "elu", "selu": "selu", "gelu": "gelu"},
    "gelu, x sigmoid(1.702 x)": gelu_by_sigmoid,
    **{"silu": "silu", "sin": keras.ops.sin, "softplus": "softplus"},
}

if __name__ == "__main__":
    print("| f | scale a | shift b, plus | slope | shift b, minus | slope | stable |")
    print("|---|---|---|---|---|---|---|")
    for name, function in FUNCTIONS.items():
        plus, minus = (GaussianPoincare(function, root) for root in ("plus", "minus"))
        cells = [f"{plus.scale:.5f}"]
        cells += [f"{p.shift:+.5f} | {p.length_slope:.4f}" for p in (plus, minus)]
        stable = GaussianPoincare(function)
        cells.append("plus" if stable.shift == plus.shift else "minus")
        print(f"| {name} | {' | '.join(cells)} |")
