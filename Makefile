# Everything sets itself up: `make demo` and `make test` need Python 3.11, git and make.
PYTHON ?= python3.11
UV_VERSION := 0.13.9
BIN := .venv/bin
EXTRAS := .venv-extras
SAGEMAKER := .venv-sagemaker
# A file of tests to one process: what a file's tests share is made once. In order: the slow first.
# Three processes on two cores, because tests also wait: for disks, for servers, for other processes.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Tests start hundreds of processes, which else compile the package anew where a container forbids it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test test-unit test-slow test-services test-extras lint bench lock clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(BIN)/.installed ## Make the environment in .venv from requirements.lock

# Compiled at once: uv does not by itself, and with PYTHONDONTWRITEBYTECODE set, as in many
# containers, each process would compile all that it imports anew: 5 s for torch and Lightning.
$(BIN)/.installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) here; name one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# Beside it, since they bring 100 packages that nothing else needs.
$(EXTRAS)/.installed: $(BIN)/.installed
	$(PYTHON) -m venv $(EXTRAS)
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(EXTRAS)/bin/python requirements.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(EXTRAS)/bin/python --editable ".[avalanche,datasets]"
	@touch $@

# Beside it too: the SDK brings 13 packages, and plugs itself into MLflow's client.
$(SAGEMAKER)/.installed: $(BIN)/.installed
	$(PYTHON) -m venv $(SAGEMAKER)
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(SAGEMAKER)/bin/python requirements.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(SAGEMAKER)/bin/python --editable ".[sagemaker]"
	@touch $@

demo: install ## Generate a project in ./demo and take it through three updates
	@$(BIN)/python scripts/demo.py

test: install ## Run all tests but the long ones
	$(BIN)/python -m pytest $(PARALLEL) tests

test-unit: install ## Run the unit tests alone
	$(BIN)/python -m pytest $(PARALLEL) tests/unit

test-slow: install ## Run the long forms of the tests
	$(BIN)/python -m pytest $(PARALLEL) -m slow tests

test-services: install $(SAGEMAKER)/.installed ## Run the tests over real protocols: MLflow, S3, SageMaker
	$(BIN)/python -m pytest $(PARALLEL) tests/services

test-extras: $(EXTRAS)/.installed ## Run the tests that need the extras avalanche and datasets
	PATH="$(CURDIR)/$(EXTRAS)/bin:$$PATH" $(EXTRAS)/bin/python -m pytest $(PARALLEL) \
		tests/pipeline/test_avalanche.py tests/unit/avalanche_learners tests/unit/data/test_hugging_face.py

lint: install ## Check style, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pyright

bench: install $(if $(filter avalanche,$(NAME)),$(EXTRAS)/.installed) ## Run a benchmark: make bench NAME=pipeline [DATA=folder] [ARGS="--quick"]
	@test -n "$(NAME)" || { echo "error: name one: $$(cd benchmarks && ls *.py | sed 's/.py//' | xargs)"; exit 2; }
	$(if $(filter avalanche,$(NAME)),$(EXTRAS)/bin,$(BIN))/python benchmarks/$(NAME).py $(if $(DATA),--data $(DATA)) $(ARGS)

lock: install ## Renew requirements.lock within the ranges of pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-emit-index-url \
		--generate-hashes --custom-compile-command "make lock" --quiet --output-file requirements.lock

clean: ## Remove the environment and the demo
	rm -rf .venv $(EXTRAS) $(SAGEMAKER) demo demo-dvc-remote
