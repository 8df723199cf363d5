# Every target sets itself up on a machine that has Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
# One forgotten worker thread would hang an interpreter for ever.
# In the foreground, or Ctrl-C would not reach it. At its limit, the suite ends as at Ctrl-C and says what has failed and
# what was running: that takes it up to half a minute.
LIMIT := timeout --foreground --kill-after=60

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "Setting up .venv, once"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

.venv/ready-dev: .venv/ready
	@echo "Adding what development needs to .venv, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
	@touch $@

.PHONY: demo
demo: .venv/ready ## build a real database, load it with and without the pool, and watch
	@$(LIMIT) 600 $(BIN)/python -m aiosqlitepool demo $(ARGS)

# SQLAlchemy's greenlets lose the trace where they are resumed, unless coverage knows of them; but then it makes one of
# each thread, and CPython 3.11 can loop for ever where threads end one after another. So these tests run twice: here with
# greenlets and without threads, and with all others the other way round.
GREENLETS := --concurrency=greenlet -m pytest -q tests/sqlalchemy --ignore tests/sqlalchemy/test_storm.py

# The whole suite in three processes, also on two cores: many tests wait, for servers and for programs that start. A part
# of it in this one. Coverage finds its way into all of them.
WORKERS ?= $(if $(ARGS),0,3)

.PHONY: test
test: .venv/ready-dev ## run the whole test suite; with COVERAGE=yes, it must reach every branch
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(if $(COVERAGE),$(LIMIT) 300 $(BIN)/coverage run $(GREENLETS))
	$(LIMIT) 1800 $(BIN)/$(if $(COVERAGE),coverage run,python) -m pytest -n $(WORKERS) $(ARGS)
	$(if $(COVERAGE),$(BIN)/coverage combine --quiet && $(BIN)/coverage report)

# The core, without the files that start other processes or wait for real timers.
FAST := tests/pool tests/driver --ignore tests/pool/test_exits.py --ignore tests/pool/test_housekeeper.py

.PHONY: test-fast
test-fast: .venv/ready-dev ## run the tests of the core, in less than a minute
	$(LIMIT) 300 $(BIN)/python -m pytest -n 2 $(FAST) $(ARGS)

.venv/ready-bench: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

.PHONY: bench
bench: .venv/ready-bench ## measure this pool beside its peers (ARGS=--quick for a look)
	@$(LIMIT) 14400 $(BIN)/python -m benchmarks $(ARGS)

.venv/ready-examples: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group examples
	@touch $@

.PHONY: stack-local
stack-local: .venv/ready-examples ## the example under load, with Debian's Prometheus and Alertmanager
	@$(BIN)/python -m examples.stack_local $(ARGS)

.PHONY: stack
stack: ## the same in containers, with Grafana, Tempo and Loki (make stack-down ends it)
	@docker compose version >/dev/null || { echo "Docker with its compose plugin is needed; without: make stack-local"; exit 1; }
	docker compose up --build --detach --wait
	@echo "Boards: http://localhost:3000   The service: http://localhost:8000/docs"

.PHONY: stack-down
stack-down: ## end what make stack started, and remove its data
	docker compose down --volumes

.PHONY: check
check: .venv/ready-dev ## lint, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tests/test_typing.py
	$(BIN)/mypy -m benchmarks.__main__ -p benchmarks.harness -p benchmarks.inside -p benchmarks.workloads
	$(BIN)/mypy --package examples
	$(BIN)/pyright
	$(BIN)/pyright tests/test_typing.py
	@echo "pyright --verifytypes: every public name of the package has a known type"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes aiosqlitepool --ignoreexternal > .venv/types || { cat .venv/types; exit 1; }
	$(BIN)/lint-imports

.PHONY: docs
docs: .venv/ready-dev ## build the documentation into build/docs; a warning is an error
	@rm -rf build/docs
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going docs build/docs

.PHONY: dist
dist: .venv/ready-dev ## build the wheel and the sdist, as they would be published
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

.PHONY: test-dist
test-dist: dist ## test what was built: alone, with each extra, and with the tests of the sdist
	DIST=dist $(LIMIT) 1200 $(BIN)/python -m pytest tests/packaging $(ARGS)

# The oldest aiosqlite that pyproject.toml allows, the last of each series, and what the index has as the newest.
PYTHONS ?= 3.11 3.12 3.13 3.14 3.15
OLDEST_AIOSQLITE := $(shell sed -n 's/^dependencies = .*aiosqlite>=\([0-9.]*\).*/\1/p' pyproject.toml)
NEXT_PYTHONS ?= 3.14 3.15
AIOSQLITES ?= ==$(OLDEST_AIOSQLITE).* ==0.21.* ==0.22.* >=$(OLDEST_AIOSQLITE)

.matrix/%/ready: pyproject.toml
	@$$(.ci/interpreter $*) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' --group dev
	@touch $@

.PHONY: matrix
matrix: ## run the suite on every supported Python that is here (PYTHONS=3.12 for one), with each series of aiosqlite
	@for series in $(PYTHONS); do \
		.ci/interpreter $$series >/dev/null || { echo "== Python $$series is not here: left out"; continue; }; \
		$(MAKE) --no-print-directory .matrix/$$series/ready || exit 1; \
		for aiosqlite in $(foreach each,$(AIOSQLITES),'$(each)'); do \
			.matrix/$$series/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "aiosqlite$$aiosqlite" || exit 1; \
			echo "== Python $$series, aiosqlite$$aiosqlite"; \
			$(LIMIT) 1800 .matrix/$$series/bin/python -m pytest -n $(WORKERS) $(ARGS) || exit 1; \
		done; \
		case $$series in 3.11) continue;; esac; \
		echo "== Python $$series, with eager tasks"; \
		EAGER_TASKS=yes $(LIMIT) 1800 .matrix/$$series/bin/python -m pytest -n $(WORKERS) tests/driver tests/pool tests/database tests/sqlalchemy tests/test_storm.py || exit 1; \
	done

.PHONY: matrix-next
matrix-next: ## run the suite on Pythons that only Debian's unstable has, in a root made by debootstrap (needs root)
	@for series in $(NEXT_PYTHONS); do \
		echo "== Python $$series, of Debian's unstable"; \
		$(LIMIT) 3600 .ci/next $$series $(ARGS) || exit 1; \
	done

.PHONY: coverage
coverage: ## the same as test COVERAGE=yes
	@$(MAKE) --no-print-directory test COVERAGE=yes

.PHONY: boards
boards: .venv/ready-dev ## make Grafana's boards from their code
	$(BIN)/python -m dashboards.build

.PHONY: pictures
pictures: .venv/ready-dev ## plot the boards from a real Prometheus (needs Debian's prometheus; minutes)
	$(LIMIT) 1200 $(BIN)/python -m tests.dashboards.pictures $(ARGS)

.PHONY: boards-real
boards-real: .venv/ready-dev ## draw the boards with Grafana's components from npm (needs prometheus, chromium; minutes)
	$(LIMIT) 1200 $(BIN)/python -m tests.dashboards.real $(ARGS)

.PHONY: boards-checks
boards-checks: .venv/ready-dev ## have Grafana's own code check the boards, in less than a minute
	$(LIMIT) 600 $(BIN)/python -m tests.dashboards.real --checks

.PHONY: clean
clean: ## remove everything that was made here
	rm -rf .venv .matrix .next .demo benchmarks/.cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
