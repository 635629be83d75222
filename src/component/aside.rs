//! Entries of the outbox that wait for somebody's presence, while those of other nodes are told.

use std::collections::{HashSet, VecDeque};

use crate::pubsub::NodeId;

use super::writer::Sent;

/// The most entries that are set aside. While there are so many, everything waits that follows.
const MAX_ENTRIES: usize = 1000;

/// Entries in their order, and their nodes: what follows at these is set aside too.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// How far each was told, and how many notifications were sent when it was set aside.
    entries: VecDeque<Sent>,
    nodes: HashSet<NodeId>,
}

impl Aside {
    /// Sets an entry of a node aside; whether there is room for it.
    pub(super) fn add(&mut self, node: &NodeId, entry: Sent) -> bool {
        let has_room = self.entries.len() < MAX_ENTRIES;
        if has_room {
            self.entries.push_back(entry);
            self.nodes.insert(node.clone());
        }
        has_room
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an entry of a node is here.
    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.nodes.contains(node)
    }

    /// The first one. Everything before it is told.
    pub(super) fn first(&self) -> Option<Sent> {
        self.entries.front().copied()
    }

    pub(super) fn entries(self) -> VecDeque<Sent> {
        self.entries
    }
}
