"""The class of this package's warnings."""


class KerasBSNNWarning(UserWarning):
    """What this package warns of; a class of its own, so that it can be filtered.

    Example:

    >>> import warnings, keras_bsnn
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", keras_bsnn.KerasBSNNWarning)
    ...     activation = keras_bsnn.activations.GaussianPoincare("softplus")
    """
