//! Support of the tests: component and server, service without transport, failing stores,
//! processes, random numbers.

pub(super) mod component;
pub mod deferring_store;
pub mod failing_store;
pub mod ld_preload;
pub mod process;
pub mod rng;
pub mod service;
