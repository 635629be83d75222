//! Stores: their contract, the event log, archives, deferred deletion, upgrades.

mod archive;
mod concurrency;
mod contract;
mod event_log;
mod gc;
mod model;
mod upgrade;
