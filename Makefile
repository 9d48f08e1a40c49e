# make demo, make test, make check, make bench, make screenshots: each does its own set-up in a virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_DATA ?= $(abspath $(or $(WSI_MIL_TEST_DATA),$(wildcard ../shared/data)))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

OPENSEADRAGON := wsi_mil/viewer/static/openseadragon.min.js

.PHONY: demo test check bench fuzz format screenshots wheel clean

demo: $(VENV)/.base $(OPENSEADRAGON)
	$(BIN)/wsi-mil demo --work demo

test: $(VENV)/.all $(OPENSEADRAGON)
	WSI_MIL_TEST_DATA="$(TEST_DATA)" $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.all
	@for name in tiles tissue bags encoder planted exports report; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

# The pictures of the README, from the synthetic demo.
screenshots: $(VENV)/.all $(OPENSEADRAGON)
	test -f demo/run/report/index.html || $(BIN)/wsi-mil demo --work demo
	$(BIN)/python docs/screenshots.py demo docs/images

wheel: $(VENV)/.base $(OPENSEADRAGON)
	$(PIP) build
	$(BIN)/python -m build --wheel

fuzz: $(VENV)/.all
	$(BIN)/python tests/slides/fuzz.py --seconds $(or $(SECONDS),600)

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.base: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[fast,viewer]'
	touch $@

$(VENV)/.all: $(VENV)/.base
	$(PIP) --editable '.[timm,fast,dicom,remote,viewer,test,check]'
	touch $@

# Of the npm registry, by the digest in npm/package-lock.json; without a network all but the viewer works.
$(OPENSEADRAGON): npm/package-lock.json | $(VENV)/.base
	-$(BIN)/python npm/fetch.py

clean:
	rm -rf $(VENV) demo build dist *.egg-info wsi_mil/viewer/static/openseadragon*
