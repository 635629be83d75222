//! A store as text: one JSON object a line, from any store, into any empty one.
//!
//! `docs/DATA-MODEL.md` describes the lines. Each node is followed by what belongs to it, so both
//! directions hold one node in memory, without its items; and going out the names of its items, and what
//! is owed, which the limit of the backlog bounds.

mod export;
mod import;
mod line;
mod subscription_line;

pub(crate) use super::node_importer::NodeImporter;
pub use export::export;
pub use import::{Epochs, import, is_empty};

use thiserror::Error;

use crate::store::StoreError;

/// The version of the lines.
const FORMAT: u32 = 1;

/// Why a store could not be written as text, or read from it.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The text cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A line is not what it should be.
    #[error("line {number}: {reason}")]
    Line {
        /// Which, counted from 1.
        number: u64,
        /// Why.
        reason: String,
    },
    /// The store to be filled has something in it.
    #[error("the store is not empty")]
    NotEmpty,
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// Nodes.
    pub nodes: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Items.
    pub items: u64,
    /// Events that are owed.
    pub events: u64,
}
