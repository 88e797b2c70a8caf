"""Packaging. The extras `datasets`, `plots` and `serve` hold what the examples use."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = {}
exec((here / "keras_bsnn" / "version.py").read_text(), version)

datasets = [
    "tensorflow-datasets>=4.9.10",
    "importlib_resources>=6.0",  # tensorflow-datasets imports it without requiring it
    "scikit-learn>=1.9",
]
plots = ["matplotlib>=3.11"]
tensorboard = ["tensorboard>=2.20"]
jax = ["jax>=0.10.2"]
litert = ["ai-edge-litert>=2.3"]
onnx = ["tf2onnx>=1.17", "onnx>=1.23", "onnxruntime>=1.32"]
serve = ["starlette>=1.10", "uvicorn>=0.54"]
docs = [
    "sphinx>=9.0",
    "furo>=2025.12.19",
    "myst-nb>=1.4",
    "sphinx-copybutton>=0.5.2",
    "sphinx-mathjax-offline>=0.0.2",
]

setup(
    name="keras_bsnn",
    version=version["__version__"],
    description="Keras 3 layers for networks of any depth",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    project_urls={
        "Source": "https://github.com/keras-bsnn/keras-bsnn",
        "Documentation": "https://keras-bsnn.github.io/keras-bsnn",
    },
    packages=find_packages(include=["keras_bsnn", "keras_bsnn.*"]),
    package_data={"keras_bsnn": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=["keras>=3.15.1", "tensorflow>=2.21", "numpy>=2.0", "scipy>=1.17"],
    extras_require={
        "datasets": datasets,
        "plots": plots,
        "tensorboard": tensorboard,
        "jax": jax,
        "litert": litert,
        "onnx": onnx,
        "serve": serve,
        "docs": [*plots, *docs],
        "gpu": ["tensorflow[and-cuda]>=2.21"],
        "peers": ["torch>=2.13", "geotorch>=0.4", "pogo-torch>=1.0"],  # of benchmarks
        "test": [
            *datasets,
            *plots,
            *tensorboard,
            *litert,
            *onnx,
            *serve,
            *jax,  # for the workers of examples/distributed.py
            "playwright>=1.65",  # drives a Chromium, if the machine has one
            "pytest>=9.0",
            "pytest-xdist>=3.8",
            "hypothesis>=6.150",
            "ruff>=0.17",
            "mypy>=2.4",
            "nbclient>=0.11",  # executes the notebook of examples/, as ipykernel
            "ipykernel>=7.4",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
