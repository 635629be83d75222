//! Everything that is tested from outside the crate, in one binary: one link step.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

mod addresses;
mod administration;
mod approval;
mod archive;
mod backlog;
mod bounces;
mod commands;
mod concurrency;
mod conformance;
mod contacts;
mod crash;
mod disk;
mod doctor;
mod errors;
mod examples;
mod expiry;
mod faults;
mod fields;
mod former;
mod harness;
mod hostile;
mod interested;
mod limits;
mod load;
mod long_tags;
mod mam;
mod model;
mod multicast;
mod options;
mod order;
mod owed;
mod policies;
mod power;

mod presence;
mod process;
mod remains;
mod resources;
mod rights;
mod rosters;
mod rsm;
mod scripts;
mod store;
mod storm;
mod stream;
mod tidy;
mod tls;
mod unconfirmed;
mod upgrade;
