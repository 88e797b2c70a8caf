# `make demo` trains and serves a network of 200 layers; `make test` runs the tests,
# `make test-jax` and `make test-torch` those that JAX and PyTorch can run, and
# `make check` the fast part of them; `make test-hub` those on the models of keras-hub;
# `make docs` builds the documentation: docs/_build/html/index.html. All install what
# they need first, into .venv but for `make test-torch` and `make test-oldest`. PYTHON
# chooses the interpreter.

PYTHON ?= python3
BIN = .venv/bin
PYTEST = $(BIN)/python -m pytest -n 2 --dist worksteal
FOLDERS = tests/diagnostics tests/layers tests/ops tests/properties
OLDEST_TESTS = $(addprefix tests/test_,activations.py arguments.py callbacks.py \
	constraints.py datasets.py export.py initializers.py manifolds.py models.py \
	optimizers.py plots.py recalibration.py requirements.py)
TORCH_TESTS = $(addprefix tests/test_,activations.py arguments.py backup.py callbacks.py \
	constraints.py datasets.py export.py initializers.py manifolds.py models.py \
	newcomer.py operator_norm.py optimizers.py package.py parts.py plots.py \
	recalibration.py report_page.py requirements.py signal_monitor.py to_keras.py)
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo check test test-jax test-hub test-torch test-oldest oldest-versions lint docs clean

demo: .venv/demo
	rm -rf runs/demo
	$(BIN)/keras-bsnn demo --out runs/demo

check: .venv/test
	$(PYTEST) -m "not slow" tests

# In two processes after one another: XLA keeps the memory of what it has compiled.
test: .venv/test
	$(PYTEST) $(FOLDERS)
	$(PYTEST) tests/test_*.py keras_bsnn

test-jax: .venv/jax
	KERAS_BACKEND=jax $(PYTEST) $(FOLDERS)
	KERAS_BACKEND=jax $(PYTEST) tests/test_*.py

test-hub: .venv/hub
	$(PYTEST) tests/hub
	KERAS_BACKEND=jax $(PYTEST) tests/hub

# The layers, the properties, and what else is quick. Threads of PyTorch spin while they
# wait: two workers with two each would be in each other's way.
test-torch: .venv-torch/ready
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 .venv-torch/bin/python \
		-m pytest -n 2 --dist worksteal \
		-m "not slow" $(FOLDERS) $(TORCH_TESTS)

# What can be expected there: not the examples, the exports but SavedModel, and XLA's
# flags of conftest.py, which older versions do not know.
test-oldest: .venv-oldest/ready
	XLA_FLAGS= .venv-oldest/bin/python -m pytest -n 2 --dist worksteal -m "not slow" \
		tests/layers tests/ops tests/diagnostics $(OLDEST_TESTS)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/docs
	rm -rf docs/_build docs/reference/generated
	$(BIN)/sphinx-build -b html -W --keep-going docs docs/_build/html

clean:
	rm -rf .venv .venv-oldest .venv-torch runs docs/_build docs/reference/generated

.venv/demo: EXTRAS = tensorflow,datasets,plots,serve
.venv/test: EXTRAS = test
.venv/jax: EXTRAS = test,jax
.venv/hub: EXTRAS = test,hub
.venv/docs: EXTRAS = docs
.venv/demo .venv/test .venv/jax .venv/hub .venv/docs: pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

# Which build of PyTorch `uv` installs: that for CPUs.
TORCH ?= --torch-backend=cpu
.venv-torch/ready: .venv/test pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-torch
	$(BIN)/uv pip install --quiet --python .venv-torch/bin/python \
		$(TORCH) pytest pytest-xdist hypothesis --editable '.[torch,datasets,plots]'
	touch $@

# The oldest versions of all that pyproject.toml asks for; `uv` chose those that they need
# themselves, by `make oldest-versions`.
OLDEST_PYTHON ?= 3.10
.venv-oldest/ready: .venv/test tests/oldest.txt
	$(BIN)/uv venv --quiet --clear --python $(OLDEST_PYTHON) .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python \
		-r tests/oldest.txt pytest pytest-xdist hypothesis --editable .
	touch $@

oldest-versions: .venv/test
	$(BIN)/uv pip compile --quiet --no-header --resolution lowest-direct \
		--python-version 3.10 --constraint tests/oldest-constraints.txt \
		--extra tensorflow --extra datasets --extra plots pyproject.toml -o tests/oldest.txt
