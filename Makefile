# Everything happens in $(VENV), made on first use. `make demo` and `make test` need nothing else on the machine but Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
TEST_STAMP := $(VENV)/.installed-test
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test soak lint types bench docs clean

demo: $(RUN_STAMP)
	$(BIN)/heatlas demo --out demo-out

test: $(TEST_STAMP)
	$(BIN)/python -m pytest -q

soak: $(TEST_STAMP)
	$(BIN)/python -m pytest -q -m soak

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
