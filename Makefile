# The habits of this repository. `make help` lists them.

.DEFAULT_GOAL := help
PROFILE ?= release

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: ## gateway, control API, agent and Jupyter on this machine, until Ctrl-C (PROFILE=dev builds faster)
	@PROFILE=$(PROFILE) .ci/up

.PHONY: check
check: ## format, lints, documentation, dependency directions, licences and advisories
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet
	.ci/directions --self-test
	.ci/directions
	.ci/deny

.PHONY: test
test: ## set up what tests need, then all tests, over real parts
	.ci/test

.PHONY: bench
bench: ## every benchmark
	cargo bench --workspace --locked
