# `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := bash
BIN := .venv/bin
READY := .venv/.ready
SOURCES := libs services tests
# Processes start by the dozen here. Without the compiled modules each takes 8 s of CPU to import a service, with them 3.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo up down status test lint types imports fast integration soak bench-audit bench-notify bench-mlflow schemas publish-schemas lock compose-test clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## everything into .venv, from the lock with hashes

$(READY): deploy/setup deploy/requirements.lock $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
	@deploy/setup

demo: $(READY) ## the main job on real parts, told step by step (KEEP=1 leaves it running)
	@$(BIN)/hallmark demo $(if $(KEEP),--keep)

up: $(READY) ## the whole system on this machine, in the foreground
	@$(BIN)/hallmark up

down: $(READY) ## stop it
	@$(BIN)/hallmark down

status: $(READY) ## what runs, and where it listens
	@$(BIN)/hallmark status

test: lint types imports fast integration ## everything CI runs

lint: $(READY)
	@echo "== ruff"; $(BIN)/ruff format --check --quiet $(SOURCES) deploy && $(BIN)/ruff check --quiet $(SOURCES) deploy

types: $(READY)
	@echo "== mypy --strict"; $(BIN)/mypy

imports: $(READY)
	@echo "== import-linter"; $(BIN)/lint-imports

fast: $(READY)
	@echo "== unit, contract"; $(BIN)/pytest tests/unit tests/contract -q -n 2

integration: $(READY)
	@echo "== property, chaos, end to end, integration"; \
	$(BIN)/pytest tests/property tests/chaos tests/e2e tests/integration -q -n 3 --dist loadgroup --durations=10

soak: $(READY) ## races 1,000 times, walks 300 times, a kill at each await, two million events: what CI has no time for
	@HALLMARK_RACES=1000 HALLMARK_MACHINE_EXAMPLES=300 \
	$(BIN)/pytest tests/integration/approval/test_races.py tests/property/test_approval_machine.py -q -n 2 --durations=10
	@HALLMARK_KILL_STEP=1 $(BIN)/pytest tests/integration/audit/test_publisher.py -q -k every_await
	@$(BIN)/python -m tests.bench.audit_soak && $(BIN)/python -m tests.bench.notify_soak

bench-notify: $(READY) ## deliveries a second, and how soon (leave the machine alone)
	@$(BIN)/python -m tests.bench.notify

MLFLOW := .venv-mlflow/bin/mlflow

$(MLFLOW):
	@python3 -m venv .venv-mlflow && .venv-mlflow/bin/pip install -q mlflow==3.17.2 psycopg2-binary

bench-mlflow: $(READY) $(MLFLOW) ## the MLflow API beside MLflow's own server on one PostgreSQL (leave the machine alone)
	@$(BIN)/python -m tests.bench.mlflow $(MLFLOW)

bench-audit: $(READY) ## ingest of the audit log against plain COPY, and from a commit to its query (leave the machine alone)
	@$(BIN)/python -m tests.bench.audit && $(BIN)/python -m tests.bench.audit --batch 1 --count 3000 \
	&& $(BIN)/python -m tests.bench.audit_latency

schemas: $(READY) ## write the JSON Schemas and the API documents anew
	@$(BIN)/python -m contracts.catalog libs/contracts/schemas && $(BIN)/python deploy/documents.py

publish-schemas: $(READY) schemas ## freeze the schemas of new types; frozen ones never change
	@mkdir -p libs/contracts/schemas/published && cp --update=none libs/contracts/schemas/*.json libs/contracts/schemas/published/ 2>/dev/null \
		|| cp -n libs/contracts/schemas/*.json libs/contracts/schemas/published/

lock: $(READY) ## resolve the dependencies anew
	@deploy/lock

compose-test: $(READY) ## the same system in containers, tested end to end
	@deploy/compose-test

clean: ## stop what runs here, remove .venv and the embedded mode's data
	@[ ! -x $(BIN)/hallmark ] || $(BIN)/hallmark down
	rm -rf .venv .hallmark
