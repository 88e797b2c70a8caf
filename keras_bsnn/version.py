"""The version of the package, which `pyproject.toml` reads, too."""

__all__ = ["__version__"]

__version__ = "0.1.0"
