//! The repository: dependencies between modules, documents, conformance.

pub mod architecture;
mod conformance;
mod docs;
mod vocabulary;
