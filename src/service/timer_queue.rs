//! At which nodes time has something to do, and when.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use gjallar_pubsub::{NodeId, Timestamp};

/// One deadline for each node: the first.
#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    known: Mutex<TimerTable>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct TimerTable {
    in_order: BTreeSet<(Timestamp, NodeId)>,
    of_nodes: HashMap<NodeId, Timestamp>,
}

impl TimerQueue {
    /// Time has something to do at a node then.
    pub(super) fn add(&self, node: &NodeId, at: Timestamp) {
        let mut known = self.known();
        let TimerTable { in_order, of_nodes } = &mut *known;
        let before = of_nodes.entry(node.clone()).or_insert(Timestamp(u64::MAX));
        if at < *before {
            in_order.remove(&(*before, node.clone()));
            *before = at;
            in_order.insert((at, node.clone()));
            drop(known);
            self.changed.notify_one();
        }
    }

    /// A node is not there any more.
    pub(super) fn remove(&self, node: &NodeId) {
        let mut known = self.known();
        if let Some(at) = known.of_nodes.remove(node) {
            known.in_order.remove(&(at, node.clone()));
        }
    }

    /// The first deadline, if there is one.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.known().in_order.first().map(|(at, _)| *at)
    }

    /// Takes the first node whose deadline is over.
    pub(super) fn pop_due(&self, now: Timestamp) -> Option<NodeId> {
        let mut known = self.known();
        if known.in_order.first()?.0 > now {
            return None;
        }
        let (_, node) = known.in_order.pop_first()?;
        known.of_nodes.remove(&node);
        Some(node)
    }

    /// Waits until there may be an earlier first deadline.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn known(&self) -> MutexGuard<'_, TimerTable> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_node_has_no_timers() {
        let (deadlines, now) = (TimerQueue::default(), Timestamp(1));
        let [here, gone] = ["here", "gone"].map(|name| NodeId::parse(name).unwrap());
        deadlines.add(&gone, now);
        deadlines.add(&here, now.later_by(1));
        deadlines.remove(&gone);
        assert_eq!(deadlines.first(), Some(now.later_by(1)));
        assert_eq!(deadlines.pop_due(now.later_by(1)), Some(here));
        assert_eq!(deadlines.pop_due(now.later_by(1)), None);
        assert!(deadlines.known().of_nodes.is_empty());
    }
}
