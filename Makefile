# Every target does its own set-up, once, in .venv; nothing is installed outside of it (bench may need `ab`).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# Tests and demo start some hundred Python processes: compiled once, each starts in half the time.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
# Pytest workers: each has an OpenBao and a PostgreSQL of its own. A third of the time a test waits for such, so three keep
# two cores busy.
WORKERS ?= 3
FUZZ_SECONDS ?= 60
STEPS ?= 1000000
SEED ?= 1
KILLS ?= 2000
LEASES ?= 100000
MINUTES ?= 30
# Tried in this order; the first that is at least 3.11 and can make a virtual environment is taken.
PYTHONS := $(PYTHON) python3 python3.13 python3.12 python3.11 /usr/bin/python3
PIP := $(BIN)/python -m pip --disable-pip-version-check

##@ Use it
.PHONY: demo
demo: .venv/ready private ## watch the whole story on real parts; exit 0 only if every step was checked
	$(BIN)/broker demo

.PHONY: dev
dev: .venv/ready private ## start everything here, to play with from another terminal; Ctrl-C ends it
	$(BIN)/broker dev

.PHONY: minio
minio: ## build MinIO from its Go module, once, outside of the repository: the demo's self-hosted S3
	@integration/minio/binaries/build

##@ Prove it
.PHONY: test
test: .venv/ready private ## unit, contract and API tests, with a real OpenBao and PostgreSQL (WORKERS=n)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --hypothesis-profile quick -m "not slow" tests

.PHONY: test-slow
test-slow: .venv/ready private ## the tests that take long: 50,000 decisions against a naive evaluator, failpoints, 100 kills, planted bugs, all examples
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "slow or hypothesis" tests

.PHONY: test-oldest-postgres
test-oldest-postgres: .venv/ready private ## of `make test`, what talks to PostgreSQL, with the oldest release that brokerd takes (16) in place of the newest
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" --oldest-postgres --ignore tests/dev tests

.PHONY: simulate
simulate: .venv/ready ## the real core, one to three replicas of it, on simulated time, disk, network and upstream: STEPS (1000000) from SEED (1), everything going wrong
	$(BIN)/python -m tests.simulation --steps $(STEPS) --seed $(SEED)

.PHONY: cells
cells: .venv/ready ## on paper: what many cells carry, what the failure of one or of a region takes away, where upstreams are the limit
	$(BIN)/python -m tests.simulation.cells

.PHONY: torture
torture: .venv/ready ## kill -9 of the real daemon under load, KILLS (2000) times from SEED (1): nothing leaked, unaudited or double
	$(BIN)/python -m tests.kill --kills $(KILLS) --seed $(SEED)

.PHONY: lint
lint: .venv/ready ## style, types, who may import whom, the wire, the locks, known vulnerabilities
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/mypy --no-error-summary requirements/lock.py requirements/audit.py docs/generate.py
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml broker
	$(BIN)/buf lint
	.ci/breaking $(BIN)/buf
	$(BIN)/python protos/generate.py --check
	$(BIN)/python docs/generate.py --check
	$(BIN)/python requirements/lock.py --check
	$(BIN)/python requirements/audit.py

.PHONY: integration
integration: .venv/ready private ## slow stories: the demo, a real OpenID provider, a real MinIO, IAM policies judged
	@integration/minio/binaries/build >/dev/null
	@integration/vault_aws/binaries/build >/dev/null
	$(BIN)/python -m pytest integration --ignore integration/spire

.PHONY: integration-oidc
integration-oidc: .venv/ready private ## of those, the ones with a real OpenID provider (Node.js; npm fetches it once)
	$(BIN)/python -m pytest integration/oidc

.PHONY: integration-minio
integration-minio: .venv/ready private ## of those, the ones with a real MinIO, which is built once, from its Go module
	@integration/minio/binaries/build >/dev/null
	$(BIN)/python -m pytest integration/minio

.PHONY: integration-replicas
integration-replicas: .venv/ready private ## of those, three daemons on one PostgreSQL: killed, stopped, cut off, promoted over
	$(BIN)/python -m pytest -s integration/replicas

.PHONY: integration-aws
integration-aws: .venv/ready ## of those, IAM policies judged by an evaluator that knows conditions (Node.js; npm fetches it once)
	$(BIN)/python -m pytest integration/aws

.PHONY: integration-vault-aws
integration-vault-aws: .venv/ready private ## of those, the ones with Vault's own AWS engine, which is built once, from its Go module
	@integration/vault_aws/binaries/build >/dev/null
	$(BIN)/python -m pytest integration/vault_aws

.PHONY: integration-vault
integration-vault: .venv/ready private ## of those, every engine of a real OpenBao through a whole brokerd
	$(BIN)/python -m pytest integration/vault

.PHONY: integration-spire
integration-spire: .venv/ready ## stories with a real SPIRE, which is built once, from its Go modules
	@integration/spire/binaries/build >/dev/null
	$(BIN)/python -m pytest integration/spire

.PHONY: fuzz
fuzz: .venv/fuzz ## fuzz what reads identities, FUZZ_SECONDS for each target; findings stay in tests/fuzz/found
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

.PHONY: mutate
mutate: .venv/mutation ## change the ideas a little, thousands of times: the tests must notice (ROOMS="lease approval"; else those that docs/mutation.md has figures of)
	$(BIN)/python -m tests.mutation --workers $(WORKERS) $(ROOMS)

.PHONY: bench
bench: .venv/ready private ## full grants per second, and login latency, against OpenBao; writes bench/latest.json
	@command -v ab >/dev/null || .ci/ensure ab apache2-utils
	$(BIN)/python -m bench

.PHONY: sbom
sbom: .venv/ready ## what brokerd is made of, as CycloneDX, from the lock: build/jit-broker.cdx.json
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements/daemon.txt --pyproject pyproject.toml --mc-type application \
	  --spec-version 1.6 --output-reproducible --output-file build/jit-broker.cdx.json 2>/dev/null
	$(BIN)/python .ci/check_sbom.py build/jit-broker.cdx.json

.PHONY: load
load: .venv/ready ## LEASES (100000) due within one second, one of four connectors hanging; exit 0 only within the bounds
	$(BIN)/python -m bench.herd --leases $(LEASES)

.PHONY: soak
soak: .venv/ready private ## brokerd under mixed load for MINUTES (30): memory, files, threads and the write-ahead log stay as they are
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

##@ Keep it
.PHONY: proto
proto: .venv/ready ## generate broker/api/v1 from protos/
	$(BIN)/python protos/generate.py

.PHONY: docs
docs: .venv/ready ## generate what docs/ and deploy/schemas/ take from the code
	$(BIN)/python docs/generate.py
	$(BIN)/python -m broker.deployfiles.schemas deploy/schemas

.PHONY: format
format: .venv/ready ## put the code in its canonical form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: .venv/ready ## write requirements/*.txt for pyproject.toml (UPGRADE=1: with the newest versions)
	$(BIN)/python requirements/lock.py $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove everything that was made here, .venv included
	rm -rf .venv build dist *.egg-info integration/*/node_modules .fuzz mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# brokerd refuses files that their group may write, and under umask 002 a clone is full of them.
.PHONY: private
private:
	@chmod -R go-w deploy

# Hash-locked, and not resolved again: pip refuses whatever is not exactly what the lock says.
.venv/locked: requirements/dev.txt
	@python="$$(.ci/python $(PYTHONS))"; \
	echo "setting up .venv with $$("$$python" --version) (once; about a minute)"; \
	"$$python" -m venv --clear .venv
	@$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@echo "$(CURDIR)" >.venv/made-in
	@touch $@

# The project itself is built with the locked build backend, not with one fetched for the occasion.
.venv/ready: .venv/locked pyproject.toml
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@

# Wheels for Linux on x86-64 only, so it is nobody's requirement but this target's.
.venv/fuzz: tests/fuzz/requirements.txt .venv/ready
	@$(PIP) install --quiet --no-compile --only-binary :all: --no-deps --require-hashes -r $<
	@touch $@

.venv/mutation: tests/mutation/requirements.txt .venv/ready
	@$(PIP) install --quiet --no-deps --require-hashes -r $<
	@touch $@

# A virtual environment does not survive being moved or copied.
ifneq ($(shell cat .venv/made-in 2>/dev/null),$(CURDIR))
.PHONY: .venv/locked
endif
