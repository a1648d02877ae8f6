# The first target is what `make` alone does. Every target that runs something sets up first; the second time that
# takes a third of a second and needs no network.
#
#   make demo ARGS="--speed 600"     arguments go to `coordinator up`
#   make setup PYTHON=python3.12     another Python than the one found

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?=
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set, each process of a test run that has no -I would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup check format test test-all demo bench soak observability docs docs-reference release clean

help:
	@echo "make demo      set up, then run the whole node here (Ctrl-C ends it)"
	@echo "make setup     only the environment: .venv, Kafka's jars, Java"
	@echo "make check     ruff and mypy"
	@echo "make test      all but the long tests; make test-all: the long ones too"
	@echo "make bench     the speed table"
	@echo "make soak      a node under load for an hour: memory, lag, latencies"
	@echo "make docs      the book, into api/book; make docs-reference: docs/reference out of the code"
	@echo "make release   all that others need, into dist/"
	@echo "make clean     remove .venv and what was built"

setup: $(READY)
	@$(BIN)/python -Im coordinator.infra.fetch

# A new lock or pyproject.toml makes this run again; pip then leaves alone what is right already.
$(READY): pyproject.toml requirements.lock
	@set -e; \
	if [ ! -x $(BIN)/python ]; then \
	  found=""; \
	  for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	    then found="$$candidate"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "setup: no Python >= 3.11 with venv and pip was found (looked for $(PYTHON) python3.11 python3.12" >&2; \
	    echo "       python3.13 python3). Install one (Debian, Ubuntu: python3.11 and python3.11-venv)," >&2; \
	    echo "       or name yours: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  echo "setup: making $(VENV) with $$found ($$("$$found" -V))"; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@# The lock names every package, so nothing is resolved; four pips side by side fetch and unpack faster than one.
	@# Python compiles what is imported when it is imported, which is a part of what is installed.
	@echo "setup: installing the packages of requirements.lock"; \
	for part in 0 1 2 3; do \
	  awk "NR % 4 == $$part" requirements.lock >$(VENV)/lock.$$part; \
	  $(BIN)/python -m pip install --quiet --no-deps --no-compile -r $(VENV)/lock.$$part & pids="$$pids $$!"; \
	done; \
	for pid in $$pids; do wait $$pid || exit 1; done
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p coordinator -p documentation -p observability

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# -I keeps the checkout's root off the module path (see conftest.py). Files of tests run side by side, a file's own
# tests in order; ARGS="-n 0" runs one after another.
PYTEST := $(BIN)/python -Im pytest -n auto --dist loadfile --no-loadscope-reorder

# Compiled once here: else each process of the run compiles all of it as it begins.
COMPILED := api cli infra projections streams

test: setup
	@$(BIN)/python -Im compileall -q -j 0 $(COMPILED)
	$(PYTEST) -m "not slow" $(ARGS) tests

test-all: setup
	$(PYTEST) $(ARGS) tests

demo: setup
	$(BIN)/coordinator up $(ARGS)

bench: setup
	$(BIN)/python -I tests/bench/run.py $(ARGS)

soak: setup
	PYTHONPATH=tests $(BIN)/python -Pm bench.soak $(ARGS)

# Alert rules, dashboards, runbook pages and the AsyncAPI of the topics, out of the code.
observability: $(READY)
	$(BIN)/python -Im observability

# After a change of a command, a setting, an event, a route, a metric, an alert or a message.
docs-reference: $(READY)
	$(BIN)/coordinator contract fields --markdown >docs/contract-fields.md
	$(BIN)/python -Im observability
	$(BIN)/python -Im documentation.reference

docs: $(READY)
	$(BIN)/python -Im documentation.book

# Wheel with the book, sdist, files of an image, SBOM, sums: into dist/.
release: $(READY)
	$(BIN)/python -Im documentation.release

clean:
	rm -rf $(VENV) build dist api/book .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
