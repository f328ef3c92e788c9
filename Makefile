# One word per job. Every word but `help` stands on `setup`, which needs python3 (3.11 or newer) and make alone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The last line of a benchmark is JSON, also where make runs it from within make.
MAKEFLAGS += --no-print-directory
PYTHON := python3
VENV := .venv
PY := $(VENV)/bin/python
SECONDS ?= 60
RATE ?= 300
JSON ?=
SEEDS ?= 5
MINUTES ?= 60
BENCH ?=

.PHONY: help
help: ## list the words
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-18s %s\n", $$1, $$2}'

.PHONY: lock
lock: ## pin every dependency with its hashes (needs uv on PATH)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra test --output-file requirements/all.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra ingestion --extra consumer --extra operator --extra build --constraint requirements/all.txt \
	  --output-file requirements/image.txt pyproject.toml

# The stamp makes every other word cheap: pip runs only when the pins or the project's metadata changed.
$(VENV)/.ready: requirements/all.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tocsin needs python3 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/all.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(VENV)/.ready ## create .venv with `tocsin` in it

.PHONY: demo
demo: setup ## run a whole pipeline under load: make demo [SECONDS=60] [RATE=300] [JSON=path]
	$(VENV)/bin/python -m tocsin_cli.demo --seconds $(SECONDS) --rate $(RATE) $(if $(JSON),--json $(JSON))

.PHONY: test
test: setup ## run every test this machine can run; says loudly what it skipped
	$(VENV)/bin/pytest tests

.PHONY: check
check: setup ## ruff, mypy, import contracts, chart, rendered manifests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy tests
	$(VENV)/bin/lint-imports
	$(PY) charts/check.py

.PHONY: render
render: setup ## write manifests/ and the chart's copy of the CRD from their sources
	$(PY) charts/check.py --write

.PHONY: e2e
e2e: setup ## the cluster tests: on $$KUBECONFIG with TOCSIN_TEST_CLUSTER=1, else on a kind cluster it makes
	tests/e2e/run

.PHONY: chaos
chaos: setup ## break running pipelines and count what is lost, repeated or reordered: make chaos [SEEDS=5]
	PYTHONPATH=tests $(PY) -m chaos --seeds $(SEEDS)

.PHONY: chaos-proves
chaos-proves: setup ## show that the chaos suite notices every deliberate bug
	PYTHONPATH=tests $(PY) -m chaos --prove

.PHONY: soak
soak: setup ## live under load and see what grew, and whether dead letters come back whole: make soak [MINUTES=60]
	PYTHONPATH=tests $(PY) -m chaos.soak --minutes $(MINUTES)

.PHONY: bench-delivery
bench-delivery: setup ## deliveries beside two loops in Go (needs go and gcc): make bench-delivery [BENCH="--backlog 10000"]
	PYTHONPATH=tests $(PY) -m bench.delivery $(BENCH)

.PHONY: bench-scaling
bench-scaling: setup ## scaling beside KEDA + HPA, Flink and Numaflow, simulated and on an offered cluster: make bench-scaling [BENCH="--seeds 3"]
	PYTHONPATH=tests $(PY) -m bench.scaling $(BENCH)

.PHONY: bench-fleet
bench-fleet: setup ## a scaling pass over 1,000 pipelines on three Kafka clusters: make bench-fleet [BENCH="--pipelines 300"]
	PYTHONPATH=tests $(PY) -m bench.fleet $(BENCH)

.PHONY: bench-ingestion
bench-ingestion: setup ## ingestion beside Gin + sarama and others (needs go and gcc): make bench-ingestion [BENCH="--rounds 3"]
	PYTHONPATH=tests $(PY) -m bench.ingestion $(BENCH)
