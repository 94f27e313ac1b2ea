# Everything happens in $(VENV), made on first use. `make demo` and `make test` need nothing else on the machine but Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
TEST_STAMP := $(VENV)/.installed-test
CONSTRAINTS := constraints/run.txt constraints/gpu.txt constraints/test.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS))

.PHONY: demo test test-integrations test-shuffled test-shapes test-other-cpu soak lint types bench docs docs-site release-check view-page clean

demo: $(RUN_STAMP)
	$(BIN)/heatlas demo --out demo-out

# One process more than there are cores, because tests of runs wait for other processes; at most 4. Whole files go to one process, so that it
# sets up a store or Ray once per file. One thread each: threads of several processes would wait for each other's cores.
JOBS ?= $(shell $(PYTHON) -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")
PYTEST := $(BIN)/python -m pytest -q
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(TEST_STAMP)
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) --durations 20

soak: $(TEST_STAMP)
	$(PYTEST) -m soak

# The order of files and of tests in them drawn from $(SEED).
SEED ?= $(shell date +%j)
test-shuffled: $(TEST_STAMP)
	$(PYTEST) $(PARALLEL) --random-order --random-order-seed $(SEED)

# Types and shapes of every call of the engine and the workers, checked by beartype.
test-shapes: $(TEST_STAMP)
	$(PYTEST) $(PARALLEL) --jaxtyping-packages heatlas,beartype.beartype -m "not soak and not unchecked_types" tests/engine tests/workers

# Round trips through the annotation tools' own libraries, and cleanlab's ranking beside ours. They want other versions than ours: an environment of their own.
TOOLS_VENV ?= .venv-integrations
$(TOOLS_VENV)/.installed: constraints/integrations.txt
	$(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints/integrations.txt
	@touch $@

test-integrations: $(TEST_STAMP) $(TOOLS_VENV)/.installed
	HEATLAS_INTEGRATIONS_PYTHON=$(abspath $(TOOLS_VENV))/bin/python $(PYTEST) tests/integrations

NUMERIC := tests/engine/test_sise_oracle.py tests/engine/contract tests/engine/test_budget.py tests/whole/test_budget_run.py
# What computes, with the instructions of another CPU and another number of threads.
test-other-cpu: $(TEST_STAMP)
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 $(PYTEST) $(PARALLEL) $(NUMERIC)

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile

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

# The documentation as a site, in site/. A broken link, or a public name without documentation, fails.
docs-site: $(TEST_STAMP)
	mkdir -p $(VENV)/package && ln -sfn $(CURDIR) $(VENV)/package/heatlas  # found by this name, whatever the checkout is called
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(VENV)/package $(BIN)/mkdocs build --strict

# sdist and wheel in bare environments of Python 3.11, 3.12 and 3.13, as far as they are on this machine.
release-check:
	release/check

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(TEST_STAMP): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) --editable '.[test,lint,docs,release]'
	$(PIP) --no-deps quantus cachetools  # quantus asks for another build of OpenCV than grad-cam, which has the same files
	@touch $@ $(RUN_STAMP)

clean:
	rm -rf build dist site *.egg-info demo-out .pytest_cache .ruff_cache .hypothesis
