# Everything runs from .venv, which holds exactly what the lock files say.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help install run dev test check format bench fuzz wheel lock clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/.installed ## what running needs, into .venv

run: install ## serve http://localhost:8080
	@exec $(BIN)/hubbub serve

dev: $(VENV)/.dev ## what running, testing and checking need

# Two at a time: half of what the tests take is waiting, for a browser or for a clock on the wall.
test: dev ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

check: dev ## linter, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: dev ## measure, as ratios to references of the same run
	$(BIN)/python -m tests.bench $(ARGS)

# The inputs worth keeping are in build/fuzz; what fails is written beside them.
fuzz: dev ## fuzz by coverage, SECONDS (60) for each target (needs: pip install atheris)
	for target in http frames tuples objects cards png markup; do \
		$(BIN)/python -m tests.fuzz $$target --seconds $(or $(SECONDS),60) || exit 1; done

wheel: dev ## build dist/*.whl
	$(BIN)/python -m pip --disable-pip-version-check -q wheel --no-deps -w dist .

lock: ## renew the lock files (needs uv)
	uv pip compile -q -U --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --extra postgresql -o requirements.lock
	uv pip compile -q -U --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --all-extras --group dev -o requirements-dev.lock

clean: ## remove what was built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .coverage

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Hubbub needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@
