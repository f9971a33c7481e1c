# make demo    sets up and runs the whole pipeline on bundled data
# make test    sets up and runs the tests
# make test-fast  the tests that need no server, no browser and no half minute
# make lint    style, and which room may import which
# make check   lint, types and tests, as CI does
# make bench   measures ingest, transform and pipeline against a plain scan, and the collector
# make lock    resolves requirements.lock anew (needs uv)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast lint types check bench docs lock clean

demo: $(READY)
	@$(BIN)/wattledger demo

test: $(READY)
	@$(BIN)/python -m pytest -n 3 --dist worksteal

test-fast: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not (service or browser or long or real)"

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo

types: $(READY)
	@$(BIN)/mypy

check: lint types test

bench: $(READY)
	@$(BIN)/python -m bench
	@$(BIN)/python -m bench.collector

docs: $(READY)
	@$(BIN)/python -m docs.generate

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit("Wattledger needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV) (once; a few minutes)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

lock:
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --quiet --extra dev --extra cluster pyproject.toml -o requirements.lock >/dev/null
	sed -i '1i # Exact versions and hashes of everything; made by `make lock`.' requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info demo-project bench/fleet
