# Two words run everything: `make demo` and `make test`. Each sets itself up; nothing but Python 3.11+, pip and make is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
TEST_ARGS ?=
TEST_WORKERS ?= 2
FAULTS_ARGS ?=
# Compiled modules are kept, whatever the shell says: hundreds of processes of ours start during the tests.
unexport PYTHONDONTWRITEBYTECODE
PAGES := api cli configuration database features

.PHONY: help demo test faults check protos docs clean

help:  ## What there is to make.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(VENV)/bin/pip:
	@echo "▸ making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Rankloop needs Python 3.11 or later; $(PYTHON) is older: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -m pip install --quiet --user virtualenv && $(PYTHON) -m virtualenv --quiet $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/.run: pyproject.toml | $(VENV)/bin/pip
	@echo "▸ installing Rankloop and an embedded MongoDB (the first time this takes a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[embedded,fast,report]"
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	@echo "▸ installing what tests and checks need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

demo: $(VENV)/.run  ## Start the stack, watch it learn, leave it running: make demo DEMO_ARGS="--exit --report demo.json"
	@$(BIN)/rankloop demo $(DEMO_ARGS)

test: $(VENV)/.dev  ## Every test, on a real MongoDB and real processes: make test TEST_ARGS="-k fold"
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(TEST_ARGS)

faults: $(VENV)/.dev  ## Every fault, many times, about 15 minutes on a machine of 2 cores: make faults FAULTS_ARGS="--length 2 --seed 1 --json faults.json"
	@$(BIN)/python -m tests.faults $(FAULTS_ARGS)

check: $(VENV)/.dev  ## Lint, types, import rules, the contract, fresh stubs and pages; in seconds.
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > .import-linter.out 2>&1 || { cat .import-linter.out; rm -f .import-linter.out; exit 1; }
	@rm -f .import-linter.out
	@$(BIN)/buf lint
	@$(BIN)/python scripts/gen_protos.py --check
	@for page in $(PAGES); do $(BIN)/python scripts/gen_$${page}_page.py --check || exit 1; done

protos: $(VENV)/.dev  ## Generate the stubs of protos/ anew.
	@$(BIN)/python scripts/gen_protos.py

docs: $(VENV)/.dev  ## Generate the generated pages of docs/ anew.
	@for page in $(PAGES); do $(BIN)/python scripts/gen_$${page}_page.py || exit 1; done

clean:  ## Remove the virtual environment and what tools left.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
