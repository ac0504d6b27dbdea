# `make help` lists the targets. Everything is installed into .venv from pinned versions, so that two set-ups are the same.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip --disable-pip-version-check --quiet
# What tests run beside Python, as command:package. Without xrootd the tests of remote files are skipped, except where CI=true.
TOOLS := curl:curl openssl:openssl xrootd:xrootd-server

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench bench-peers docs clean tools

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1 \t/' | expand -t 20

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; say which with make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The basic package: what a user gets.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing mlaas4hep into $(VENV) (once; a few minutes where the packages have to be fetched)"
	$(PIP) install torch==2.13.0
	$(PIP) install --editable .
	@touch $@

# Tests and checks on top of it.
$(VENV)/.developed: $(VENV)/.installed
	@echo "Installing what tests and checks need"
	$(PIP) install --editable '.[dev]'
	@touch $@

tools:
	@missing=; for tool in $(TOOLS); do command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool#*:}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $$missing >/dev/null; fi; \
	  for tool in $(TOOLS); do command -v $${tool%%:*} >/dev/null && continue; \
	    echo "tests need $${tool%%:*} (Debian: apt-get install $${tool#*:})" >&2; \
	    [ "$${tool%%:*}" = xrootd ] && [ "$$CI" != true ] || exit 1; done; fi

setup: $(VENV)/.developed tools  ## install the package with all that development needs

demo: $(VENV)/.installed  ## from ROOT files to a served prediction: read, train, write, serve
	$(BIN)/mlaas4hep demo --out demo-output

test: setup  ## run all tests
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.developed  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.developed  ## measure speed, as ratios in one run; results in benchmarks/results
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/nanoaod.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/slow_reference.py

bench-peers: $(VENV)/.developed  ## measure other loaders beside ours, in environments of their own (2 GB)
	$(BIN)/python benchmarks/peers.py weaver
	$(BIN)/python benchmarks/peers.py root

docs: $(VENV)/.developed  ## run the examples of README and docs
	$(BIN)/python -m pytest -q tests/test_documentation.py

clean:  ## remove what the other targets made
	rm -rf $(VENV) build dist demo-output benchmarks/data benchmarks/environments/*/.venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
