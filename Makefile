# Each command does all the set-up on a Debian machine with cargo; tests/e2e/setup.sh says what that is.

.PHONY: demo test setup check unit doc e2e

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
	cargo fmt --check
	cargo clippy -q $(CARGO_FLAGS) --all-targets -- -D warnings

unit:
	cargo test $(CARGO_FLAGS)

doc:
	RUSTDOCFLAGS='-D warnings' cargo doc -q $(CARGO_FLAGS) --no-deps

e2e:
	cargo build -q $(CARGO_FLAGS) --bins --examples
	.venv/bin/python -m pytest -q tests/e2e
