# Every target sets itself up on a machine that has Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# One forgotten worker thread would hang an interpreter for ever.
# In the foreground, or Ctrl-C would not reach it.
LIMIT := timeout --foreground --kill-after=10

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

.venv/ready-dev: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
	@touch $@

.PHONY: demo
demo: .venv/ready ## build a real database, load it with and without the pool, and watch
	@$(LIMIT) 600 $(BIN)/python -m aiosqlitepool demo $(ARGS)

.PHONY: test
test: .venv/ready-dev ## run the whole test suite
	$(LIMIT) 1800 $(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: .venv/ready-dev ## lint, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tests/test_typing.py
	$(BIN)/pyright
	$(BIN)/lint-imports

.PHONY: coverage
coverage: .venv/ready-dev ## branch coverage of the core
	$(LIMIT) 1800 $(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

.PHONY: boards
boards: .venv/ready-dev ## make Grafana's boards from their code
	$(BIN)/python -m dashboards.build

.PHONY: pictures
pictures: .venv/ready-dev ## plot the boards from a real Prometheus (needs Debian's prometheus; minutes)
	$(LIMIT) 1200 $(BIN)/python -m tests.dashboards.pictures $(ARGS)

.PHONY: clean
clean: ## remove everything that was made here
	rm -rf .venv .demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
