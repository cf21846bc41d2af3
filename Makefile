# The two commands of the README are `make start` and `make test`; the rest is for people who work on it.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Tests in parallel: most of their time is waiting for real processes.
WORKERS ?= 4

.PHONY: help install dev start test check format soak bench lock clean

help:
	@echo "make start    set up and run autopilot in this repository"
	@echo "make test     set up and run the whole test suite"
	@echo "make install  only the set-up: .venv with .venv/bin/autopilot"
	@echo "make check    format, ruff, mypy, import-linter"
	@echo "make soak     the long runs      make bench  what it costs"

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "autopilot needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "python3-venv is missing. Install it with: sudo apt-get install -y python3-venv"; exit 1; }
	@echo "setting up $(VENV) (once; takes a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.installed requirements-dev.lock
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

start: install
	@$(BIN)/autopilot start

test: dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not soak"

check: dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only .

soak: dev
	@$(BIN)/python -m pytest -m soak --timeout 3600 -s

bench: dev
	@$(BIN)/python tests/benchmarks/bench.py

# The locks name no index: they hold for whichever one pip is set up with.
lock: dev
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --extra caddy --extra build pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --extra caddy --extra build --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
