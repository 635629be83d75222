# Each command does all the set-up on a Debian machine with cargo; tests/e2e/setup.sh says what that is.

.PHONY: demo test setup check unit doc e2e crash power

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

# The proofs in their long form; `make test` has short ones. OPERATING.md says what each shows.

# A thousand kills and broken connections, and two hundred kills behind Prosody and ejabberd.
crash: setup
	CRASH_ROUNDS=1000 cargo test $(CARGO_FLAGS) --test it crash -- --nocapture
	cargo build -q $(CARGO_FLAGS) --bins --examples
	CRASH_KILLS=100 .venv/bin/python -m pytest -q -s tests/e2e -k kills

# Thousands of losses of power.
power: setup
	POWER_OPERATIONS=3000 POWER_TRIALS=3000 cargo test $(CARGO_FLAGS) --test it power -- --nocapture
