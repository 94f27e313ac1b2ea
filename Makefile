# Everything happens in $(VENV), made on first use. `make demo` and `make test` need nothing else on the machine but Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
TEST_STAMP := $(VENV)/.installed-test
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-shuffled test-shapes test-other-cpu soak lint types bench docs view-page clean

demo: $(RUN_STAMP)
	$(BIN)/heatlas demo --out demo-out

# One process per core, at most $(JOBS_AT_MOST); whole files go to one process, so that a process sets up a store or Ray once per file.
JOBS_AT_MOST ?= 4
PYTEST := $(BIN)/python -m pytest -q
PARALLEL := -n logical --maxprocesses $(JOBS_AT_MOST) --dist loadfile --no-loadscope-reorder

test: $(TEST_STAMP)
	$(PYTEST) $(PARALLEL) --durations 20

soak: $(TEST_STAMP)
	$(PYTEST) -m soak

# The order of files and of tests in them drawn from $(SEED).
SEED ?= $(shell date +%j)
test-shuffled: $(TEST_STAMP)
	$(PYTEST) $(PARALLEL) --random-order --random-order-seed $(SEED)

# Types and shapes of every call of the engine and the workers, checked by beartype.
test-shapes: $(TEST_STAMP)
	$(PYTEST) $(PARALLEL) --jaxtyping-packages heatlas,beartype.beartype tests/engine tests/workers

# What computes, with the instructions of another CPU and another number of threads.
test-other-cpu: $(TEST_STAMP)
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) tests/engine tests/whole/test_budget_run.py \
		tests/whole/test_explain.py tests/whole/test_evaluate.py tests/whole/test_methods_run.py

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

# `make bench` lists the measurements, `make bench RUN="NAME ARGUMENTS"` runs one.
bench: $(TEST_STAMP)
	$(BIN)/python -m bench $(RUN)

# `make docs` writes every page that follows from the code, `make docs PAGES="layers metrics"` some of them.
docs: $(TEST_STAMP)
	$(BIN)/python -m docs.generate $(PAGES)

# `make view-page` builds the page of `heatlas view` from its sources; needs Node. What it writes is committed.
view-page:
	cd pipeline/view/page && npm ci --no-audit --no-fund && npm run build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[test,lint]'
	@touch $@ $(RUN_STAMP)

clean:
	rm -rf build dist *.egg-info demo-out .pytest_cache .ruff_cache .hypothesis
