# The two commands of a newcomer: `make demo` and `make test`. Everything else is cargo.

CARGO ?= cargo
RELEASE = target/release/sisforge

.PHONY: demo test lint bench build packages test-packages bench-packages

## the whole job on this machine, from Debian's packages to a rootless container in a guest
demo: packages build
	demo/run $(abspath $(RELEASE))

## every check that CI makes
test: test-packages lint build
	PATH="$(CURDIR)/target/test-tools/usr/sbin:$$PATH" SISFORGE_REQUIRE_ORACLES=1 $(CARGO) test --locked
	demo/run $(abspath $(RELEASE))

build:
	$(CARGO) build --release --locked

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

## sisforge against its peers on the same work, as ratios
bench: bench-packages build
	benches/solve $(abspath $(RELEASE))
	benches/image $(abspath $(RELEASE)) 5

packages:
	demo/install-packages

test-packages:
	demo/install-packages test

bench-packages:
	demo/install-packages bench
