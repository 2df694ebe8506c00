# mutransfer. `make` or `make help` lists what there is; every target stands alone and may be run again.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Install choices, documented in README.md. They are part of the environment's stamp: changing one reinstalls.
PYTHON ?=
TORCH_SPEC ?= torch==2.13.0
TORCH_INDEX ?=
export PYTHON TORCH_SPEC TORCH_INDEX

# Options of single targets.
ARGS ?=
ROW ?=
DB ?=
DEMO_PORT ?= 8400
export DEMO_PORT

# Relative on purpose: the checkout may live under a path with spaces.
BIN := .venv/bin

.PHONY: help venv demo test prepare-tests check check-deploy format bench bench-optimizers bench-service bench-nights chaos table up clean distclean wheel

help: ## list the targets
	@printf 'mutransfer: which learning rate do I set at full width, and how sure are you?\n\n'
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sort | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|' 2>/dev/null \
	  || grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST))
	@printf '\nvariables: PYTHON=python3.12  TORCH_SPEC="%s"  TORCH_INDEX=URL  DEMO_PORT=%s  ARGS="pytest arguments"\n' "$(TORCH_SPEC)" "$(DEMO_PORT)"

venv: ## create .venv/ and install everything (instant when nothing changed)
	@bash scripts/venv.sh

demo: venv ## a transfer study from submission to verdict, with its dashboard; saves a report into reports/
	@$(BIN)/python scripts/demo.py

up: venv ## the embedded service on http://127.0.0.1:8400, home .mutransfer/, until Ctrl-C
	@$(BIN)/python -m service.cli up --home .mutransfer --port 8400

prepare-tests: venv
	@bash scripts/prepare_tests.sh

test: prepare-tests ## the whole test suite (installs PostgreSQL and Chromium where it may); ARGS="-k name"
	@$(BIN)/python -m pytest $(ARGS)

check: venv ## style, types and import directions (check-deploy: the files of deployment)
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports

check-deploy: venv ## check Dockerfiles, compose file, Kubernetes manifests and shell scripts (installs five linters into .venv/)
	@bash scripts/check_deploy.sh

format: venv ## format the code and mend what ruff can mend
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

bench: venv ## orchestration overhead a trial against plain Ray Tune; coverage of the fit's intervals
	@$(BIN)/python -m benchmarks.overhead
	@$(BIN)/python -m benchmarks.coverage

bench-optimizers: venv ## step times of our optimizers beside the peers (installs heavyball); ARGS="--width 256"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[peers]' "$(TORCH_SPEC)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.optimizers $(ARGS)

bench-service: prepare-tests ## speed at 1,000,000 trials in PostgreSQL (the first time seeds 4 GB); ARGS="--rounds 1"
	@$(BIN)/python -m benchmarks.service $(ARGS)

bench-nights: venv ## 2,000 simulated nights without a change and planted faults (minutes); ARGS="--nights 200 --faults 20" for a look
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.nights $(ARGS)

table: venv ## the transfer table of every optimizer: runs what docs/results/table lacks (hours, resumable)
	@$(BIN)/python -m benchmarks.table

chaos: prepare-tests ## the fault tests of docs/reliability.md that have no result of this code; ROW=7 DB=postgresql FORCE=1
	@$(BIN)/python -m benchmarks.chaos $(if $(ROW),--row $(ROW)) $(if $(DB),--db $(DB)) $(if $(FORCE),--force) $(ARGS)

wheel: venv ## build the wheel into dist/
	@$(BIN)/python -m pip wheel . --no-deps --wheel-dir dist

clean: ## remove caches and build outputs
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv/ and the demo's home too
	@rm -rf .venv .demo
