"""`python -m keras_bsnn` is the command `keras-bsnn`."""

from _keras_bsnn_command import main

if __name__ == "__main__":
    main()
