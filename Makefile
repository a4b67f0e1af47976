# Each target sets up what it needs: a virtual environment in .venv, made with pip alone.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: demo test test-all quick-tests check lint types format fresh bench bench-learning bench-gpu docs clean

demo: .venv/installed ## The whole line on synthetic slides; ends with the path of its report.
	$(BIN)/eosin demo --out eosin-demo $(DEMO_ARGS)

test: lint ## Lint, types and all tests but the slow ones; types are checked while tests wait.
	+@$(MAKE) --no-print-directory --jobs=2 types quick-tests

test-all: lint types ## Everything that needs no GPU.
	$(PYTEST) -m "not gpu" $(TEST_ARGS)

quick-tests: .venv/installed-dev
	$(PYTEST) -m "not slow and not gpu" $(TEST_ARGS)

check: lint types ## Format, lint and types, without changing anything.

lint: .venv/installed-dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: .venv/installed-dev
	$(BIN)/basedpyright --level error

format: .venv/installed-dev ## Rewrites the code in the project's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fresh: ## The README's two commands in a new clone of the current commit, as a new user has them.
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	git clone --quiet . "$$folder/eosin"; cd "$$folder/eosin"; \
	EOSIN_TEST_DATA="$${EOSIN_TEST_DATA:-$(abspath ../shared/data)}" $(MAKE) demo test

bench: .venv/installed-bench ## Every benchmark of bench/ against its peer, but for the one below.
	@for file in bench/[a-z]*.py; do name=$$(basename $$file .py); \
	[ $$name = learning ] || $(BIN)/python -m bench.$$name --json || exit 1; done

bench-learning: .venv/installed-bench ## Does it learn as much as lightly? Hours; goes on when stopped.
	$(BIN)/python -m bench.learning --json

bench-gpu: .venv/installed-bench ## The same on a GPU, for the benchmarks that have a --device.
	@for file in $$(grep -l -- '--device' bench/[a-z]*.py); do name=$$(basename $$file .py); \
	$(BIN)/python -m bench.$$name --json --device cuda || exit 1; done

docs: .venv/installed ## The reference of the commands, from their own help.
	$(BIN)/python docs/write_commands.py

clean: ## Removes what the targets made.
	rm -rf .venv eosin-demo

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable ".[dev]"
	@touch $@

.venv/installed-bench: .venv/installed
	$(PIP) --editable ".[bench]"
	@touch $@
