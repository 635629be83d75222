//! Archives: a store as text, one JSON object per line. Every kind of store can be exported. An archive can be imported
//! into every kind of store, if the store is empty.
//!
//! `docs/DATA-MODEL.md` describes the lines. Each node is followed by the data that belongs to it. Therefore import and
//! export have only one node in memory at a time, and not its items. The export also has the ids of the node's items in
//! memory, and the pending log entries, which the backlog limits bound.

mod export;
mod import;
mod line;
mod subscription_line;

pub(crate) use super::node_importer::NodeImporter;
pub use export::export;
pub use import::{Epochs, import, is_empty};

use thiserror::Error;

use crate::store::StoreError;

/// Version of the archive format.
const FORMAT: u32 = 1;

/// Error of an export or import.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The archive cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A line is invalid.
    #[error("line {number}: {reason}")]
    Line {
        /// Line number, from 1.
        number: u64,
        /// Reason.
        reason: String,
    },
    /// The store to import into is not empty.
    #[error("the store is not empty")]
    NotEmpty,
}

/// Numbers of exported or imported objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// Number of nodes.
    pub nodes: u64,
    /// Number of subscriptions.
    pub subscriptions: u64,
    /// Number of items.
    pub items: u64,
    /// Number of pending log entries.
    pub events: u64,
}
