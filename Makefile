# `make demo` trains and serves a network of 200 layers; `make test` runs the tests,
# `make test-jax` those that JAX can run, and `make check` the fast part of them.
# All install what they need into .venv first. PYTHON chooses the interpreter.

PYTHON ?= python3
BIN = .venv/bin
PYTEST = $(BIN)/python -m pytest -n 2 --dist worksteal
FOLDERS = tests/diagnostics tests/layers tests/ops tests/properties
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo check test test-jax lint clean

demo: .venv/demo
	rm -rf runs/demo
	$(BIN)/python examples/train.py --model bsnn --dataset digits --depth 200 --out runs/demo

check: .venv/test
	$(PYTEST) -m "not slow" tests

# In two processes after one another: XLA keeps the memory of what it has compiled.
test: .venv/test
	$(PYTEST) $(FOLDERS)
	$(PYTEST) tests/test_*.py keras_bsnn

test-jax: .venv/jax
	KERAS_BACKEND=jax $(PYTEST) $(FOLDERS)
	KERAS_BACKEND=jax $(PYTEST) tests/test_*.py

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs

.venv/demo: EXTRAS = tensorflow,datasets,plots,serve
.venv/test: EXTRAS = test
.venv/jax: EXTRAS = test,jax
.venv/demo .venv/test .venv/jax: pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@
