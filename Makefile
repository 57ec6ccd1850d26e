# The habits of this repository. `make help` lists them.

.DEFAULT_GOAL := help
PROFILE ?= release

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: ## gateway, control API, agent and Jupyter on this machine, until Ctrl-C (PROFILE=dev builds faster)
	@PROFILE=$(PROFILE) .ci/up

.PHONY: check
check: ## format, lints, documentation, dependency directions, licences and advisories
	.ci/prerequisites
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet
	.ci/directions --self-test
	.ci/directions
	.ci/deny
	python3 docs/check_threat_model.py
	python3 docs/check_metrics.py

.PHONY: test
test: ## set up what tests need, then all tests, over real parts
	.ci/test

.PHONY: upgrade-test
upgrade-test: ## one process takes over from another while WebSockets stay open
	cargo test -p runit-gateway --locked --test upgrade

.PHONY: crash-test
crash-test: ## 200 rounds of kill -9 under load; prints how far the ledger was off
	cargo test -p runit-gateway --locked --test crash -- --nocapture

.PHONY: bench
bench: ## every benchmark: the gateway beside its peers, then core alone; half an hour on a machine of its own
	.ci/prerequisites
	bench/setup.sh
	cargo build --release --locked -p runit-gateway -p runit-bench
	$${CARGO_TARGET_DIR:-target}/release/runit-bench all
	cargo bench -p runit-bench-core --locked
