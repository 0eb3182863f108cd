# The two commands of a newcomer: `make demo` and `make test`. Everything else is cargo.

CARGO ?= cargo
RELEASE = target/release/sisforge
STATIC = x86_64-unknown-linux-musl
TOOLS = target/test-tools
DENY_VERSION = 0.20.2
DENY = $(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
MACHETE_VERSION = 0.9.2
MACHETE = $(TOOLS)/cargo-machete-$(MACHETE_VERSION)/bin/cargo-machete
MDBOOK_VERSION = 0.4.52
MDBOOK = $(TOOLS)/mdbook-$(MDBOOK_VERSION)/bin/mdbook

.PHONY: demo test test-long test-host lint bench build dist docs packages test-packages host-packages bench-packages dist-packages docs-packages

## the whole job on this machine, from Debian's packages to a rootless container in a guest; with KEEP=1, the guests run on
demo: packages
	$(CARGO) build --profile demo --locked
	demo/run $(abspath target/demo/sisforge)

## every check that CI makes
test: test-packages lint build
	PATH="$(CURDIR)/$(TOOLS)/usr/sbin:$(CURDIR)/$(TOOLS)/usr/bin:$$PATH" SISFORGE_REQUIRE_ORACLES=1 CARGO="$(CARGO)" tests/run
	demo/run $(abspath $(RELEASE))
	tests/containers/run $(abspath $(RELEASE))
	SISFORGE_REQUIRE_ORACLES=1 tests/genuine/run $(abspath $(RELEASE))

## what `make test` does a part of, in full: each command killed before each of its steps by each signal, and more of what is random
test-long: test-packages
	PATH="$(CURDIR)/$(TOOLS)/usr/sbin:$(CURDIR)/$(TOOLS)/usr/bin:$$PATH" SISFORGE_REQUIRE_ORACLES=1 SISFORGE_TEST_KILLS=1000 \
		SISFORGE_TEST_POLICIES=1000 SISFORGE_TEST_RACES=1000 SISFORGE_TEST_WORLDS=20 SISFORGE_TEST_LAYOUTS=1500 $(CARGO) test --locked --test sisforge

## the package, the demo and more on a host of its own: Debian with systemd, cgroup v2 and KVM, in an emulated machine
test-host: packages host-packages dist
	tests/host/run $(abspath target/$(STATIC)/release/sisforge) target/dist/sisforge_*_amd64.deb

build:
	$(CARGO) build --release --locked

## the documentation, in target/docs: pages of docs/, and the reference from the program's own help and schema
docs: docs-packages build $(MDBOOK)
	docs/make $(abspath $(RELEASE)) $(MDBOOK) target/docs

## what is given out, in target/dist: one static binary, in an archive and in a Debian package, with man pages, completions, unit
dist: dist-packages
	$(CARGO) build --release --locked --target $(STATIC)
	dist/make target/$(STATIC)/release/sisforge

lint: $(DENY) $(MACHETE)
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(DENY) --locked --log-level error check licenses bans sources
	$(MACHETE) --skip-target-dir
	.ci/commit-subjects

# Of one version each, built once: together two minutes on two processors.
$(DENY):
	$(CARGO) install -q --locked --debug --root $(TOOLS)/cargo-deny-$(DENY_VERSION) cargo-deny@$(DENY_VERSION)

$(MACHETE):
	$(CARGO) install -q --locked --debug --root $(TOOLS)/cargo-machete-$(MACHETE_VERSION) cargo-machete@$(MACHETE_VERSION)

## sisforge against its peers on the same work, as ratios
bench: bench-packages build
	benches/solve $(abspath $(RELEASE))
	benches/image $(abspath $(RELEASE)) 5

$(MDBOOK):
	$(CARGO) install -q --locked --debug --no-default-features --root $(TOOLS)/mdbook-$(MDBOOK_VERSION) mdbook@$(MDBOOK_VERSION)

packages:
	demo/install-packages

test-packages:
	demo/install-packages test

host-packages:
	demo/install-packages host

bench-packages:
	demo/install-packages bench

dist-packages:
	demo/install-packages dist

docs-packages:
	demo/install-packages docs
