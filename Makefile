# What people and continuous integration do with this tree. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run build build-profiled client test test-bitcoin test-faults check sim bench bench-peers up down setup

# Tools that scripts/setup.sh had to bring come first, then the machine's own, then rustup's.
export PATH := $(CURDIR)/.tools/bin:$(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

CLIENT_SOURCES := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print)

help: ## This list
	@echo "Antiphon, a media server. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

run: build ## Build for release and serve on http://127.0.0.1:7880, for this machine only
	exec target/release/antiphon serve --dev

build: setup client ## Build target/release/antiphon, with the client inside
	cargo build --release --locked

build-profiled: setup client ## Build target/profiled/antiphon: a packet costs some percent less, the build twice the time
	scripts/profiled.sh

client: setup web/dist/index.html

web/dist/index.html: $(CLIENT_SOURCES)
	cd web && npm run --silent build

test: ## Every test: Rust, the client, and real browsers against the real binary
	@scripts/setup.sh test
	@scripts/test.sh

test-bitcoin: ## Payments on real Bitcoin and Lightning nodes; builds lnd the first time (10 minutes)
	@scripts/setup.sh test
	@scripts/bitcoin.sh get
	ANTIPHON_TEST_LIGHTNING=1 cargo test --locked --test conformance -- wallet
	cargo test --locked --no-run --test protocol
	cd tests/e2e && npm run --silent bitcoin

test-faults: ## Faults of a cluster at full length: leases of 5 s, a minute without Redis or Kafka (15 minutes)
	@scripts/setup.sh test
	ANTIPHON_LEASE_MS=5000 ANTIPHON_AWAY_S=60 cargo test --locked --test cluster -- --nocapture --test-threads=1

check: ## Form: rustfmt, clippy, cargo-deny, vendor/, the client's types and lint
	@scripts/setup.sh check
	@scripts/check.sh

sim: setup ## One simulated run from a seed: make sim SEED=42
	SEED=$(or $(SEED),$(error give a seed: make sim SEED=42)) cargo test --locked --test sim -- one_seed --nocapture

up: build ## A cluster on this machine: Redis, Kafka and three nodes; prints their URLs
	@scripts/setup.sh cluster
	@scripts/up.sh up

down: ## Stop what `make up` started
	@scripts/up.sh down

bench: build ## Measure forwarding on this machine; prints JSON
	scripts/bench.sh

bench-peers: build ## Compare forwarding with LiveKit, Janus and mediasoup here: JSON and a page with plots
	@scripts/setup.sh peers
	benches/peers/run.sh

setup:
	@scripts/setup.sh build
