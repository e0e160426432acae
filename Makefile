# Everything a newcomer types. Needs Python >= 3.11 with pip and venv, and make.
PYTHON ?= python3
PORT ?= 3000
OUT ?= .bench
PROCESSES ?= 3
VENV := .venv
BIN := $(VENV)/bin
TESTS := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo demo-once demo-change dev test soak coverage test-ui bench bench-page bench-receiver bench-drain bench-definitions bench-dry-run docs lint types imports spelling check clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(VENV)/installed-demo  ## start a real ERP, sync it through Dagster, serve the UI until Ctrl-C
	@exec $(BIN)/python -m demo.run --port $(PORT)

demo-once: $(VENV)/installed-demo  ## the same without the UI: ends after the runs
	@exec $(BIN)/python -m demo.run --port $(PORT) --once

demo-change: $(VENV)/installed-demo  ## change the ERP of the running demo
	@exec $(BIN)/python -m demo.change

dev: $(VENV)/installed-dev  ## Dagster alone, on your own jobs and settings
	@exec $(BIN)/dagster dev --host 127.0.0.1 --port $(PORT)

test: $(VENV)/installed-dev  ## the tests, PostgreSQL and the real ERP included; PROCESSES=1 one after the other
	@exec $(TESTS) -m "not soak and not ui"

soak: $(VENV)/installed-dev  ## the tests that take long: more instants, more data, more servers
	@exec $(TESTS) -m "soak and not ui"

coverage: $(VENV)/installed-dev  ## all tests, and which lines and branches they reach
	@exec $(TESTS) -m "not ui" --cov --cov-report=term:skip-covered

test-ui: $(VENV)/installed-dev  ## what an operator sees, read in a real browser; needs Chromium
	@exec $(BIN)/python -m pytest -m ui

bench: $(VENV)/installed-dev  ## how fast a sync is, beside others; SIZES=1M SCENARIOS=A,C CONTESTANTS=run_sync,limit ...
	@exec $(BIN)/python -m benchmarks --out $(OUT) \
	  $(if $(SIZES),--sizes $(SIZES)) $(if $(SCENARIOS),--scenarios $(SCENARIOS)) \
	  $(if $(CONTESTANTS),--contestants $(CONTESTANTS)) $(if $(REPETITIONS),--repetitions $(REPETITIONS)) \
	  $(if $(DATABASE),--database $(DATABASE))

bench-receiver: $(VENV)/installed-dev  ## durable, verified webhooks a second from one receiver; DATABASE=sqlite
	@exec $(BIN)/python -m benchmarks.receiver $(if $(DATABASE),--database $(DATABASE)) \
	  $(if $(REPETITIONS),--repetitions $(REPETITIONS))

bench-drain: $(VENV)/installed-dev  ## a burst of 100,000 webhooks for 20,000 items, and how long it takes to apply it
	@exec $(BIN)/python -m benchmarks.drain

bench-definitions: $(VENV)/installed-dev  ## how long Dagster takes to load 1, 200 and 1,000 syncs, and how much memory
	@exec $(BIN)/python -m benchmarks.definitions

bench-dry-run: $(VENV)/installed-dev  ## how long the diff of a dry run takes, beside that of a plain run
	@exec $(BIN)/python -m benchmarks.dry_run

bench-page: $(VENV)/installed-dev  ## write docs/benchmarks.md again, out of benchmarks/results
	@exec $(BIN)/python -m benchmarks.page benchmarks/results --docs docs

docs: $(VENV)/installed-dev  ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/installed-dev  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## types, strictly
	$(BIN)/mypy

imports: $(VENV)/installed-dev  ## which room may import which
	$(BIN)/lint-imports

spelling: $(VENV)/installed-dev  ## spelling
	$(BIN)/codespell

check: lint types imports spelling docs test  ## what CI runs, before `make soak` and `make test-ui`

clean:  ## remove what runs, tests and the demo left behind
	rm -rf site .sync_pipelines .demo .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing what the demo needs into $(VENV) ..."
	@$(PIP) --editable '.[erp]'
	@touch $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing everything, tests and tools included, into $(VENV) ..."
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/installed-demo
