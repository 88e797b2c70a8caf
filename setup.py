"""Packaging: pyproject.toml has it all."""

from setuptools import setup

setup()
