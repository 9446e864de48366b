# One command a chore. `make` alone lists them.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 8000
WORKFLOWS ?= examples/workflows
ROUNDS ?= 100

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --no-input -qq install --root-user-action=ignore

.PHONY: help run test check bench fuzz faults docs clean
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo
	@echo "PORT=8001 make run          another port"
	@echo "make test PYTHON=python3.13 VENV=.venv-3.13"
	@echo "make fuzz ROUNDS=1000"

run: $(VENV)/.installed-standalone ## serve the example workflows, and a page at http://127.0.0.1:8000/ui/
	@$(RUN) -m agentmap_asgi serve $(WORKFLOWS) --host $(HOST) --port $(PORT)

test: $(VENV)/.installed-test ## run the tests
	@$(RUN) -m pytest -q -n auto --dist worksteal

check: $(VENV)/.installed-dev ## lint, format, types, layers and documentation
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check --quiet .
	@$(RUN) -m mypy
	@$(RUN) -m pytest -q -n auto tests/test_layers.py tests/test_public_door.py tests/test_docs.py

bench: $(VENV)/.installed-bench ## measure against other ways of running the same workflows
	@$(RUN) -m benchmarks

fuzz: $(VENV)/.installed-test ## run the randomised tests for long
	@$(RUN) -m pytest -q -n auto --dist worksteal --long -m long --rounds $(ROUNDS) --timeout 7200 --ignore tests/faults

faults: $(VENV)/.installed-test ## kill, stop, cut off and corrupt for long, and count what was promised
	@$(RUN) -m pytest -q --long --timeout 3600 -rP tests/faults

docs: $(VENV)/.installed-dev ## write the tables of docs/ from those of the package
	@$(RUN) docs/tables.py

clean: ## remove the environment and everything made by tools
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made once; an extra is installed again when pyproject.toml has changed.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make run PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11: make run PYTHON=/path/to/python3"; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the $* packages into $(VENV)"
	@$(PIP) -e ".[$*]"
	@touch $@
