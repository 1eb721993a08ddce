# Needs Python 3.11 or newer and make; everything else goes into .venv, from hash-locked files.
# ARGS is handed on:  make test ARGS="-k barrier -x"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

BIN  := .venv/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check --quiet install
SQL  := $(wildcard sql/fanfold_sql/migrations/*.sql sql/fanfold_sql/procedures/*.sql)
LANGGRAPH_TESTS := $(wildcard tests/*/test_saver_*.py tests/*/test_langgraph*.py)
ARGS ?=
SEED ?= 1
SECONDS ?= 60
# Each runs tests against servers of its own. Tests wait for servers a third of the time, so two cores do for three.
WORKERS ?= 3

.PHONY: help demo test oldest prove chaos bench lint dev lock dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo.stamp ## index Python's standard library with a fleet, one kill -9 and a replay
	$(BIN)/python examples/stdlib_index/demo.py $(ARGS)

test: .venv/dev.stamp ## run the tests (real Kafka if there is one)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

oldest: .venv-oldest/oldest.stamp ## run LangGraph's tests with the oldest LangGraph that is supported
	.venv-oldest/bin/python -m pytest -n $(WORKERS) --dist loadfile $(LANGGRAPH_TESTS) $(ARGS)

prove: .venv/dev.stamp ## break the wire and the commit in every way we know
	$(BIN)/python -m tests.property.prove $(ARGS)

chaos: .venv/dev.stamp ## try to break every guarantee on this machine: SEED=n SECONDS=s
	$(BIN)/python -m tests.fault.chaos --seed $(SEED) --seconds $(SECONDS) $(ARGS)

# Of a whole run, and only of that, the pictures that docs/performance.md shows.
bench: .venv-bench/bench.stamp ## measure beside baselines and limits: QUICK=1 for five minutes
	.venv-bench/bin/python -m tests.benchmarks $(if $(QUICK),--quick $(ARGS),$(or $(ARGS),--plots docs/plots))

lint: .venv/dev.stamp ## check style, types, SQL and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/squawk $(SQL)
	$(BIN)/python -m pytest -q tests/unit/test_import_direction.py

dev: .venv/demo.stamp ## run PostgreSQL and a broker here until Ctrl-C
	$(BIN)/fanfold dev $(ARGS)

# Demo is compiled first and constrains dev, so that both ask for the same versions.
COMPILE := $(BIN)/uv pip compile pyproject.toml requirements/build.in --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

lock: .venv/dev.stamp ## take the newest allowed versions into requirements/*.txt
	$(COMPILE) --upgrade --extra dev-stack -o requirements/demo.txt
	$(COMPILE) --upgrade --all-extras -c requirements/demo.txt -o requirements/dev.txt
	$(COMPILE) --upgrade --extra dev-stack --extra langgraph --extra test --group bench -c requirements/dev.txt \
		-o requirements/bench.txt
	$(COMPILE) requirements/oldest.in --upgrade --extra dev-stack --extra langgraph --extra test \
		-c requirements/demo.txt -o requirements/oldest.txt

dist: .venv/dev.stamp ## build the wheel and the sdist into dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove .venv, dist and caches
	rm -rf .venv .venv-bench .venv-oldest dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# A stamp is newer than what was installed from; dev has everything demo has.
.venv/dev.stamp: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch .venv/demo.stamp $@

# Celery, DBOS and what they bring stay out of the environment that tests and types are checked in.
.venv-bench/bench.stamp: requirements/bench.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv .venv-bench
	.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/bench.txt
	.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

.venv-oldest/oldest.stamp: requirements/oldest.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv .venv-oldest
	.venv-oldest/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/oldest.txt
	.venv-oldest/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/demo.stamp: requirements/demo.txt pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements/demo.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# PYTHON=/path/to/python takes that one. A name on the PATH may be a shim without an interpreter behind it, and
# some systems split venv off into a package of its own, so each candidate is tried.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3 python); do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making .venv with $$("$$python" --version)"; \
			exec "$$python" -m venv .venv; \
		fi; \
	done; \
	echo "fanfold needs Python 3.11 or newer with the venv module; looked for:" \
		"$(or $(PYTHON),python3.14 ... python3.11, python3, python)." >&2; \
	echo "Install one (on Debian and Ubuntu also python3-venv), or name it: make PYTHON=/path/to/python" >&2; \
	exit 1
