# Thin recipes. `make` alone lists them; what a recipe needs and does not find is built or installed first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The folder that `make up` works in, its agent, and more flags for the program that a recipe runs.
DIR ?=
AGENT ?=
ARGS ?=

NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
WEB_INPUTS := $(shell find web/src web/public web/scripts -type f 2>/dev/null) web/index.html web/package.json \
	web/package-lock.json web/vite.config.ts web/svelte.config.js web/tsconfig.json

.PHONY: help up build web setup test check check-rust check-deny check-web tidy test-rust test-web test-agents test-evil test-up chaos bench-chaos soak soak-sim sim fuzz mutants e2e bench types clean

help: ## Lists the recipes
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: build ## The main job: a session with the scripted agent in a copy of demo/, or in DIR=… with your own agent (AGENT=…)
ifeq ($(DIR),)
	@mkdir -p demo/work && cp demo/README.md demo/lamp.sh demo/work/
	FARHELM_SCRIPTED_SCENARIO="$(CURDIR)/demo/scenario.json" \
	target/release/farhelm up --dir demo/work --agent $(or $(AGENT),scripted) $(ARGS)
else
	target/release/farhelm up --dir "$(DIR)" $(if $(AGENT),--agent $(AGENT)) $(ARGS)
endif

build: web/dist/index.html ## The programs farhelm and farhelm-relay, with the web app in them
	cargo build --release --locked -p farhelm -p farhelm-relay

web: web/dist/index.html ## The web app

web/dist/index.html: web/node_modules/.package-lock.json $(wildcard $(WEB_INPUTS))
	cd web && npm run --silent build
	@touch $@

web/node_modules/.package-lock.json: web/package-lock.json web/package.json
	scripts/setup.sh web

setup: ## Installs what the tests need and this machine lacks
	scripts/setup.sh

test: setup ## Everything: all suites below, and what `make check` looks at
	$(MAKE) --no-print-directory web
	$(MAKE) --no-print-directory test-web
	$(MAKE) --no-print-directory test-rust
	$(MAKE) --no-print-directory test-evil
	$(MAKE) --no-print-directory test-agents
	$(MAKE) --no-print-directory e2e
	$(MAKE) --no-print-directory test-up
	$(MAKE) --no-print-directory check

check: check-rust check-deny check-web ## Format, lints, documentation, house rules, dependencies, the web app's types and lints

check-rust: tidy
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@# Help texts are comments too, and have bare addresses; pages of private items are made as well.
	RUSTDOCFLAGS='-D warnings -A rustdoc::bare_urls -A rustdoc::private_intra_doc_links' cargo doc --locked --workspace --no-deps --document-private-items --quiet

check-deny: ## Licences and banned or doubled dependencies, when cargo-deny is installed
	@if command -v cargo-deny >/dev/null; then cargo deny --offline --locked check licenses bans sources; \
	else echo 'check-deny: skipped, cargo-deny is not installed (cargo install --locked cargo-deny)'; fi

check-web: web/dist/index.html
	cd web && npm run --silent check

tidy: ## The rules of the house, as tests
	cargo test --locked --quiet -p farhelm-sim --test tidy --test typescript

# Without cargo-nextest the tests run with cargo alone, which cannot leave out one binary by name.
CLI_TESTS := $(filter-out agents,$(basename $(notdir $(wildcard crates/cli/tests/*.rs)))) \
	$(notdir $(patsubst %/main.rs,%,$(wildcard crates/cli/tests/*/main.rs)))

test-rust: ## Everything in Rust that needs no agents and no browser
ifneq ($(NEXTEST),)
	cargo nextest run --locked --workspace -E 'not (package(farhelm) and binary(agents))'
else
	cargo test --locked --workspace --exclude farhelm
	cargo test --locked -p farhelm --bins $(CLI_TESTS:%=--test %)
endif

test-evil: ## A relay that does evil, with a real daemon and devices
	cargo build --locked -p farhelm
ifneq ($(NEXTEST),)
	cargo nextest run --locked -p farhelm-chaos --features evil
else
	cargo test --locked -p farhelm-chaos --features evil
endif

chaos: ## Kills, cuts and freezes real programs, and looks for what is lost, doubled or told wrongly
ifneq ($(NEXTEST),)
	cargo nextest run --locked -p farhelm --test chaos
else
	cargo test --locked -p farhelm --test chaos
endif

bench-chaos: ## Of 1,000 messages and approvals, how many are lost, doubled or misreported under kills and cuts (ARGS='--count 2000')
	cargo build --release --locked -p farhelm -p farhelm-chaos
	target/release/farhelm-chaos bench --farhelm target/release/farhelm $(ARGS)

# How long the soak takes, and how many sessions with a device each work at once.
MINUTES ?= 60
SESSIONS ?= 20

soak: ## Memory and open files of daemon and relay while they work and are cut off each minute (MINUTES=60, SESSIONS=20)
	cargo build --release --locked -p farhelm -p farhelm-chaos
	target/release/farhelm-chaos soak --farhelm target/release/farhelm --minutes $(MINUTES) --sessions $(SESSIONS)

test-up: build ## README's first command, as a newcomer types it
	scripts/try-up.sh

test-web: web/node_modules/.package-lock.json ## The web app's own tests
	cd web && npm run --silent test

test-agents: ## Real agent programs against the model server on loopback
	scripts/agents.sh
ifneq ($(NEXTEST),)
	FARHELM_AGENTS=required cargo nextest run --locked --profile agents -p farhelm --test agents
else
	FARHELM_AGENTS=required cargo test --locked -p farhelm --test agents -- --test-threads=2
endif

e2e: web/dist/index.html ## The web app in Chromium against real programs
	cargo build --locked -p farhelm -p farhelm-relay
	cd web && FARHELM_BIN="$(CURDIR)/target/debug/farhelm" npm run --silent e2e

sim: ## Many plans of the simulation (SEEDS=100000, or a range: SEEDS=5000-6000)
	SEEDS=$(or $(SEEDS),100000) cargo test --locked -p farhelm-sim --test simulation long -- --nocapture

# How many hours the soak on a played clock goes on.
HOURS ?= 24

soak-sim: ## A day and more of faults on a played clock (HOURS=24, SEED=34)
	HOURS=$(HOURS) cargo test --locked -p farhelm-sim --test simulation f34 -- --nocapture

# How long each decoder is searched, and which; all of them unless said.
SECONDS ?= 60
TARGET ?=

fuzz: ## Searches for input that a decoder does not survive (SECONDS=600, TARGET=frame)
	scripts/fuzz.sh $(SECONDS) $(TARGET)

mutants: ## Promises broken on purpose, in a copy; the simulation must notice each
	scripts/mutants.sh

bench: build ## The relay beside yardsticks, interleaved, printed as ratios; and what is shipped, weighed (ARGS=--full)
	cargo run --release --locked -p farhelm-bench -- all $(ARGS)

types: ## Writes the web app's types anew from the Rust ones
	TYPES_WRITE=1 cargo test --locked --quiet -p farhelm-sim --test typescript

clean: ## Removes what was built; the agents in .cache stay
	cargo clean
	rm -rf web/dist web/node_modules demo/work
