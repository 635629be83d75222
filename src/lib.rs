//! scaffolding
#![allow(missing_docs)]
pub mod pubsub;
pub mod service;
pub mod store;
