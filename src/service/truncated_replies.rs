//! Metric and log of replies that were truncated for requesters that did not request pages; each node and requester is
//! logged once.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use jid::BareJid;
use tracing::warn;

use gjallar_pubsub::{Actor, NodeId};

use super::Service;

/// Maximum number of logged pairs of node and requester; further pairs are not logged.
const MAX_LOGGED: usize = 1000;

/// Logged pairs of node and requester. `None` stands for the list of nodes.
#[derive(Debug, Default)]
pub(super) struct TruncationLog(Mutex<HashSet<(Option<NodeId>, BareJid)>>);

impl TruncationLog {
    /// Records a pair. Returns `true` if it has to be logged: it is new, and the limit is not reached.
    fn is_new(&self, node: Option<&NodeId>, requester: BareJid) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < MAX_LOGGED && logged.insert((node.cloned(), requester))
    }
}

impl Service {
    /// Counts a truncated reply about a node, or about the list of nodes (`None`), to a requester that did not request
    /// a page.
    pub fn note_truncation(&self, actor: &Actor, node: Option<&NodeId>) {
        self.state.metrics.truncations.inc();
        if self.state.truncations.is_new(node, actor.bare()) {
            warn!(
                event = "reply_truncated",
                node = node.map(NodeId::as_str),
                requester_domain = actor.jid.domain().as_str(),
                max_reply_bytes = self.policies().max_reply_bytes(&actor.jid),
                "truncated a reply to a requester that did not ask for pages"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_logged_once_and_the_pairs_are_bounded() {
        let log = TruncationLog::default();
        let jid = |number: usize| BareJid::new(&format!("{number}@localhost")).unwrap();
        let node = NodeId::parse("n").unwrap();
        assert!(log.is_new(Some(&node), jid(0)) && log.is_new(None, jid(0)));
        assert!(!log.is_new(Some(&node), jid(0)) && !log.is_new(None, jid(0)));
        let new = (0..2 * MAX_LOGGED).filter(|number| log.is_new(Some(&node), jid(*number)));
        assert_eq!(new.count(), MAX_LOGGED - 2);
    }
}
