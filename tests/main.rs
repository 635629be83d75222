//! All integration tests in one binary: one link step.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

mod delivery;
mod faults;
mod process;
mod repo;
mod store;
mod support;
mod xep;
mod xep0060;
