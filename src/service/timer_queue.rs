//! Deadlines of timer-driven operations at nodes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use gjallar_pubsub::{NodeId, Timestamp};

/// Queue of nodes by their deadlines, with the earliest deadline of each node.
#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    table: Mutex<TimerTable>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct TimerTable {
    in_order: BTreeSet<(Timestamp, NodeId)>,
    of_nodes: HashMap<NodeId, Timestamp>,
}

impl TimerQueue {
    /// Adds a deadline of a node, unless the node has an earlier one.
    pub(super) fn add(&self, node: &NodeId, at: Timestamp) {
        let mut table = self.table();
        let TimerTable { in_order, of_nodes } = &mut *table;
        let before = of_nodes.entry(node.clone()).or_insert(Timestamp(u64::MAX));
        if at < *before {
            in_order.remove(&(*before, node.clone()));
            *before = at;
            in_order.insert((at, node.clone()));
            drop(table);
            self.changed.notify_one();
        }
    }

    /// Removes a deleted node.
    pub(super) fn remove(&self, node: &NodeId) {
        let mut table = self.table();
        if let Some(at) = table.of_nodes.remove(node) {
            table.in_order.remove(&(at, node.clone()));
        }
    }

    /// Returns the earliest deadline.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.table().in_order.first().map(|(at, _)| *at)
    }

    /// Removes and returns the node with the earliest deadline, if that deadline has passed.
    pub(super) fn pop_due(&self, now: Timestamp) -> Option<NodeId> {
        let mut table = self.table();
        if table.in_order.first()?.0 > now {
            return None;
        }
        let (_, node) = table.in_order.pop_first()?;
        table.of_nodes.remove(&node);
        Some(node)
    }

    /// Waits until the earliest deadline may have changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn table(&self) -> MutexGuard<'_, TimerTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(deadlines.table().of_nodes.is_empty());
    }
}
