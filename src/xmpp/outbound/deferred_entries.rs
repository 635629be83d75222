//! Log entries that are deferred until the presence of a recipient is known, while entries of other nodes are sent.

use std::collections::{HashSet, VecDeque};

use crate::service::Cursor;
use gjallar_pubsub::NodeId;

use super::writer::SendProgress;

/// Maximum number of deferred entries. At the maximum, all later entries wait.
const MAX_ENTRIES: usize = 1000;

/// Deferred entries in log order, and the nodes of these entries. Later entries of these nodes are deferred too.
#[derive(Debug, Default)]
pub(in crate::xmpp) struct DeferredEntries {
    /// For each deferred entry: the position at which its delivery continues, and the number of notifications that were
    /// sent for this and earlier entries since the start of the process.
    entries: VecDeque<SendProgress>,
    nodes: HashSet<NodeId>,
}

impl DeferredEntries {
    /// Defers an entry of a node. Returns `false`, and does not defer the entry, if the maximum
    /// number of entries is deferred already.
    pub(in crate::xmpp) fn add(&mut self, node: &NodeId, entry: SendProgress) -> bool {
        let has_room = self.entries.len() < MAX_ENTRIES;
        if has_room {
            self.entries.push_back(entry);
            self.nodes.insert(node.clone());
        }
        has_room
    }

    pub(in crate::xmpp) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns `true` if an entry of a node is deferred.
    pub(in crate::xmpp) fn has(&self, node: &NodeId) -> bool {
        self.nodes.contains(node)
    }

    /// Returns the first deferred entry. All entries before it are sent.
    pub(in crate::xmpp) fn first(&self) -> Option<SendProgress> {
        self.entries.front().copied()
    }

    /// Returns the position at which the delivery of each deferred entry continues.
    pub(in crate::xmpp) fn positions(&self) -> Vec<Cursor> {
        self.entries.iter().map(|entry| entry.position).collect()
    }

    pub(in crate::xmpp) fn entries(self) -> VecDeque<SendProgress> {
        self.entries
    }
}
