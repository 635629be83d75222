//! Support of the tests: a component and its server, a service, stores that fail, processes, chance.

pub(super) mod component;
pub mod deferring_store;
pub mod failing_store;
pub mod ld_preload;
pub mod process;
pub mod rng;
pub mod service;
