#![cfg_attr(docsrs, feature(doc_cfg))]
//! scaffolding
pub mod command;
pub mod component;
pub mod process;
pub mod pubsub;
pub mod service;
pub mod store;
pub mod wire;
