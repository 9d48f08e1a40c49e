# make demo, make test, make check, make bench: each does its own set-up in a virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_DATA ?= $(abspath $(or $(WSI_MIL_TEST_DATA),$(wildcard ../shared/data)))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check bench fuzz format clean

demo: $(VENV)/.base
	$(BIN)/wsi-mil demo --work demo

test: $(VENV)/.all
	WSI_MIL_TEST_DATA="$(TEST_DATA)" $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.all
	@for name in tiles tissue bags encoder planted exports; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

fuzz: $(VENV)/.all
	$(BIN)/python tests/slides/fuzz.py --seconds $(or $(SECONDS),600)

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.base: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[fast]'
	touch $@

$(VENV)/.all: $(VENV)/.base
	$(PIP) --editable '.[timm,fast,dicom,remote,test,check]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
