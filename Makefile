# The two commands that matter: `make demo` and `make test`. Everything else is in `make help`.
# Stamp files (.venv/.synced, */node_modules/.synced) make a second `make install` instant.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

BIN := .venv/bin
CODE := src tests tools contracts/tools $(wildcard benchmarks)

.PHONY: help
help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# -- installing ---------------------------------------------------------------------------------------------------------

.PHONY: install
install: .venv/.synced contracts/node_modules/.synced tests/clients/node_modules/.synced ## Everything that this project needs, into .venv and node_modules

.venv/.synced: requirements.lock pyproject.toml tools/uv.lock tools/make-venv
	@tools/make-venv
	@echo "Installing the pinned Python packages"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

contracts/node_modules/.synced: contracts/package-lock.json
	@tools/check-node
	@echo "Installing the pinned contract tools"
	@cd contracts && npm ci --silent --no-audit --no-fund
	@touch $@

tests/clients/node_modules/.synced: tests/clients/package-lock.json
	@tools/check-node
	@echo "Installing the pinned stock clients"
	@cd tests/clients && npm ci --silent --no-audit --no-fund
	@touch $@

# -- running ------------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: install ## A whole market on this machine: two hosts, a renter, a crash, proofs, settlement
	@$(BIN)/fabstir demo

.PHONY: bench
bench: install ## Every benchmark, one JSON object each
	@for file in $$(grep -l __main__ benchmarks/*.py); do $(BIN)/python "$$file" --json; done

# -- testing ------------------------------------------------------------------------------------------------------------

# A file of tests stays in one process; the longest ones come first (tests/conftest.py).
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: test
test: install ## All tests: contracts in forge, then everything else
	@$(BIN)/python contracts/tools/forge.py test
	@$(BIN)/pytest $(SIDE_BY_SIDE)

.PHONY: test-unit
test-unit: install ## Only tests that start no process
	@$(BIN)/pytest $(SIDE_BY_SIDE) -m "not real and not scenario"

.PHONY: coverage
coverage: install ## Branch coverage of the WebSocket and session code; fails below 90 %
	@$(BIN)/python tools/session_coverage.py

.PHONY: check
check: install ## Format, lint, types, layers, and that nothing generated is stale
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python contracts/tools/build.py --check
	@$(BIN)/python contracts/tools/forge.py fmt --check
	@$(BIN)/python tools/check_lock.py
	@$(BIN)/python tools/generate_reference.py --check

.PHONY: mutants
mutants: install ## Mistakes put on purpose into the contracts and the settlement core, each of which the tests must find
	@$(BIN)/python contracts/tools/mutants.py
	@$(BIN)/python tools/settlement_mutants.py

.PHONY: fuzz
fuzz: install ## Schemathesis over the HTTP APIs of host and gateway, all checks, for some minutes
	@FABSTIR_FUZZ_EXAMPLES=300 $(BIN)/pytest tests/api/test_fuzzed.py

.PHONY: halmos
halmos: install ## Proofs of the contracts' arithmetic for all inputs
	@contracts/tools/halmos.sh

.PHONY: slither
slither: install ## Static analysis of the contracts; fails on high and medium findings
	@contracts/tools/slither.sh

# -- changing -----------------------------------------------------------------------------------------------------------

.PHONY: fmt
fmt: install ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix --exit-zero --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

.PHONY: contracts
contracts: install ## Compile the contracts and write artifacts and bindings
	@$(BIN)/python contracts/tools/build.py

.PHONY: docs
docs: install ## Write docs/reference from the code
	@$(BIN)/python tools/generate_reference.py

.PHONY: lock
lock: .venv/.synced ## Pin again after a change of the dependencies in pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --extra vectors --extra p2p --extra tracing --extra nvidia --group dev --generate-hashes --universal --python-version 3.11 -o requirements.lock --quiet

.PHONY: clean
clean: ## Remove everything that `make` made
	rm -rf .venv contracts/node_modules tests/clients/node_modules contracts/out contracts/cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
