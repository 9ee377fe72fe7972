# Every target is one verb a user would say. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 8003
DATA   ?= .payledger
WORKERS ?= 3
# The plugins that the suite uses: the others that are found would be loaded by each worker, too.
PLUGINS := --disable-plugin-autoload -p xdist -p pytest_timeout -p pytest_randomly -p _hypothesis_pytestplugin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run demo test test-peers torture check bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  \033[36m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything in it, from the Python registry alone

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "payledger needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

run: setup ## Start everything, send a payment through, and stay up on PORT (8003)
	@$(BIN)/payledger dev --port $(PORT) --data $(DATA) --demo

demo: setup ## Walk one payment through a running service, or start one and stop it
	@$(BIN)/payledger demo --data $(DATA)

test: setup ## Run the whole test suite: real Postgres, Stripe's SDK over HTTP, Kafka over a socket
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(PLUGINS) --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-peers: setup ## The tests beside the real services: Apache Kafka, stripe-mock, the system's PostgreSQL (PEERS="kafka stripe": those)
	$(BIN)/python -m tests.peers $(PEERS)

torture: setup ## Storms of readers and writers, 2,000 faults, 20 kills of everything, years of 1,000 customers; prints what was counted
	TORTURE=minutes $(BIN)/python -m pytest --capture=no --timeout=1800 tests/test_torture.py tests/test_feed_storm.py tests/test_money_storm.py tests/test_billing_years.py tests/test_publish_storm.py tests/test_orders_storm.py

check: setup ## Formatting, lint, types and the layers' contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## Measure each bar as a ratio inside one run (QUICK=1: in a minute; ONLY="append get": those)
	$(BIN)/python -m tests.bench $(ONLY)

clean: ## Remove what was installed and built (the data of `make run` stays in DATA)
	rm -rf $(VENV) .peers build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
