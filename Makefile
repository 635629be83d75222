# Each command does all the set-up on a Debian machine with cargo; tests/e2e/setup.sh says what that is.

# Each needs what `setup` installs, and two builds at once are slower than one after the other.
.NOTPARALLEL:
.PHONY: demo test setup check unit doc e2e e2e-newest clients package static image release sbom notes crash power hostile presence compare fuzz soak deny bench

CARGO_FLAGS = --locked

# A private Prosody, gjallar on a sled store, an owner, a bot and two subscribers; a kill -9 and a restart.
# KEEP=1 leaves it running and says how to join.
demo: setup
	cargo build -q $(CARGO_FLAGS) --bins --examples
	.venv/bin/python tests/e2e/demo.py $(if $(KEEP),--keep)

# Everything that a change must pass.
test: setup check unit doc e2e

setup:
	@tests/e2e/setup.sh

check:
	cargo fmt --all --check
	cargo clippy -q $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

unit:
	cargo test $(CARGO_FLAGS) --workspace

doc:
	RUSTDOCFLAGS='-D warnings' cargo doc -q $(CARGO_FLAGS) --workspace --no-deps

# The Debian releases with whose Prosody and ejabberd the end-to-end tests run: all tests with the first, and with the
# others all but those marked one_release. Servers of other releases than this machine's are in target/servers. The
# tests mostly wait, so those with one release run beside those with another.
RELEASES = bookworm trixie
e2e: setup
	cargo build -q $(CARGO_FLAGS) --bins --examples
	$(MAKE) package BINARY=target/debug/gjallar INTO=target/package-test DEB_FLAGS=--fast
	@echo "running the end-to-end tests with the servers of: $(RELEASES) (target/e2e-RELEASE.log, several minutes)"; \
	for release in $(RELEASES); do \
		said=target/e2e-$$release; rm -f $$said.failed; \
		{ DEBIAN_RELEASE=$$release PACKAGE_UNDER_TEST=target/package-test \
			.venv/bin/python -m pytest -q -p no:cacheprovider $${marked:+-m "$$marked"} tests/e2e > $$said.log 2>&1 || touch $$said.failed; } & \
		marked='not one_release'; \
	done; wait; \
	for release in $(RELEASES); do cat target/e2e-$$release.log; done; \
	for release in $(RELEASES); do \
		[ ! -e target/e2e-$$release.failed ] || { echo "end-to-end tests failed with the servers of $$release" >&2; failed=1; }; \
	done; [ -z "$$failed" ]

# The same with the newest Prosody and ejabberd, of Debian testing.
e2e-newest:
	$(MAKE) e2e RELEASES=testing

# Clients in Java and Go, which need Maven and Go.
clients: setup
	cargo build -q $(CARGO_FLAGS) --bins
	.venv/bin/python -m pytest -q tests/e2e/java_and_go.py

# A Debian package, in target/package/debian. It is of a release build, unless BINARY is another.
BINARY = target/release/gjallar
INTO = target/package
PACKAGE = $(INTO)/release
package: setup
	command -v cargo-deb >/dev/null || cargo install -q cargo-deb@3.8.0 --locked --debug
	[ $(BINARY) != target/release/gjallar ] || cargo build $(CARGO_FLAGS) --release --bin gjallar
	rm -rf $(INTO)
	mkdir -p $(PACKAGE)
	cp $(BINARY) $(PACKAGE)/gjallar
	$(PACKAGE)/gjallar man $(PACKAGE)/man
	$(PACKAGE)/gjallar completions bash > $(PACKAGE)/gjallar.bash
	$(PACKAGE)/gjallar completions zsh > $(PACKAGE)/_gjallar
	$(PACKAGE)/gjallar completions fish > $(PACKAGE)/gjallar.fish
	CARGO_TARGET_DIR=$(INTO) cargo deb -q --no-build --locked --strip $(DEB_FLAGS)

# A program that needs nothing beside itself, not even a C library, in target/TRIPLE/release; it passes the tests of `make e2e` but that of the package.
TRIPLE = $(shell uname -m)-unknown-linux-musl
static: setup
	rustup -q target add $(TRIPLE)
	cargo build -q $(CARGO_FLAGS) --release --target $(TRIPLE) --bins --examples
	CARGO_TARGET_DIR=target/$(TRIPLE) GJALLAR_PROFILE=release .venv/bin/python -m pytest -q tests/e2e --ignore tests/e2e/test_package.py

# An image of that program for containers, `gjallar`, with nothing else in it. BUILDER may be buildah or podman.
BUILDER = docker
image: static
	rm -rf target/image
	mkdir -p target/image/store
	cp target/$(TRIPLE)/release/gjallar target/image/gjallar
	strip target/image/gjallar
	$(BUILDER) build -t gjallar -f config/Dockerfile target/image

# What a release has, in target/release-VERSION: package, static program, bill of materials (CycloneDX), notes, checksums.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DIST = target/release-$(VERSION)
release: package static
	PACKAGE_UNDER_TEST=target/package .venv/bin/python -m pytest -q tests/e2e/test_package.py
	command -v cargo-cyclonedx >/dev/null || cargo install -q cargo-cyclonedx@0.5.9 --locked --debug
	rm -rf $(DIST)
	mkdir -p $(DIST)
	cp target/package/debian/*.deb $(DIST)
	strip -o $(DIST)/gjallar target/$(TRIPLE)/release/gjallar
	tar -C $(DIST) -czf $(DIST)/gjallar-$(VERSION)-$(TRIPLE).tar.gz gjallar
	rm $(DIST)/gjallar
	$(MAKE) -s sbom > $(DIST)/gjallar-$(VERSION).cdx.json
	$(MAKE) -s notes > $(DIST)/NOTES.md
	cd $(DIST) && sha256sum * > SHA256SUMS

# Everything that is compiled in, without what only builds it.
sbom:
	cargo cyclonedx -q -f json --no-build-deps --override-filename target-sbom
	sed 's|path+file://[^"]*#|#|' target-sbom.json
	rm target-sbom.json

# What CHANGELOG.md says of this version, or of what comes next if it does not have it yet.
notes:
	@grep -q '^## $(VERSION)' CHANGELOG.md && version=$(VERSION) || version=Unreleased; \
	awk -v version=$$version '/^## / { found = $$2 == version } found' CHANGELOG.md

# The proofs in their long form; `make test` has short ones of the first four. docs/PROOFS.md says what each
# shows, and what came out.

# A thousand kills and broken connections, and two hundred kills behind Prosody and ejabberd.
crash: setup
	CRASH_ROUNDS=1000 cargo test $(CARGO_FLAGS) --test it faults::kill9 -- --nocapture
	cargo build -q $(CARGO_FLAGS) --bins --examples
	CRASH_KILLS=100 STOPPED_SECONDS=60 .venv/bin/python -m pytest -q -s tests/e2e -k 'kills or reads_nothing'

# Fifteen hundred losses of power.
power: setup
	POWER_OPERATIONS=500 POWER_TRIALS=1500 cargo test $(CARGO_FLAGS) --test it faults::power_loss -- --nocapture

# A corpus of what strangers send, and 200 000 requests that chance makes of it.
hostile: setup
	HOSTILE_REQUESTS=200000 cargo test $(CARGO_FLAGS) --test it faults::abuse -- --nocapture

# A reconnection with 200 000 entities whose presence is known.
presence: setup
	PRESENCE_ENTITIES=200000 cargo test $(CARGO_FLAGS) --test it reconnection_with_many -- --nocapture

# Where Prosody's and ejabberd's own modules answer otherwise, into docs/CONFORMANCE.md.
compare: setup
	.venv/bin/python tests/e2e/compare.py

# Ten million executions of each fuzz target, or TARGET=one, with RUNS=number. No sanitizer: the crate has no
# unsafe code, and so a stable toolchain does.
RUNS = 10000000
TARGET = stream request form record archive model
fuzz: setup
	command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	python3 fuzz/seeds.py fuzz/seeds
	set -e; cd fuzz; for target in $(TARGET); do \
		mkdir -p corpus/$$target; \
		cargo fuzz run -s none $$target corpus/$$target seeds/$$target -- \
			-runs=$(RUNS) -max_len=4096 -timeout=20 -print_final_stats=1; \
	done

# An hour of mixed load behind a server that restarts every five minutes; MINUTES and SERVER choose others.
MINUTES = 60
SERVER = prosody
soak: setup
	cargo build -q $(CARGO_FLAGS) --bins --examples
	.venv/bin/python tests/e2e/soak.py --server $(SERVER) --minutes $(MINUTES)

# Licences, sources and advisories of everything that is compiled in.
deny:
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny check

# The same load against gjallar and what it is compared with, written into docs/BENCHMARKS.md; more than twenty minutes, or
# BENCH=name for one of them. `cargo bench` times the hot functions alone.
BENCH =
bench:
	@tests/e2e/setup.sh valgrind
	.venv/bin/python -m pip install -q --disable-pip-version-check -r benches/requirements.txt
	cd benches/load && cargo build -q $(CARGO_FLAGS) --release --target-dir target
	cargo build -q $(CARGO_FLAGS) --release --bin gjallar
	cargo bench -q $(CARGO_FLAGS) --no-run --bench hot
	.venv/bin/python benches/run.py $(BENCH)
