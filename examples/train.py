"""Trains a very deep network, saves it, exports it, and serves from what was exported.

    python examples/train.py --dataset digits --depth 200

It is the command `keras-bsnn train`, whose code is in `keras_bsnn/_train`.
"""

import sys

from keras_bsnn.__main__ import main as command


def main():
    command(["train", *sys.argv[1:]])


if __name__ == "__main__":
    main()
