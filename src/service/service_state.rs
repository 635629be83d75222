//! State of the service in memory: cached nodes, which may be ahead of the disk, and data that is updated after each
//! durable commit.

use std::sync::Arc;

use tracing::error;

use crate::store::{CommitReceipt, CorruptRecord, Partial, StoreError};
use gjallar_pubsub::{Change, Changes, Epoch, NodeId};

use super::{
    CapsInterests, Error, LogWindow, Metrics, Resources, RosterCache, aliases::Aliases,
    bounce_tracker::BounceTracker, node_cache::NodeCache, node_counts::NodeCounts,
    pending_commits::PendingCommits, presence::tracker::PresenceTracker, timer_backoff::Delays,
    timer_queue::TimerQueue, truncated_replies::TruncationLog, workers::presence_retries::Retries,
};

/// Cached nodes, window of the event log, trackers and counters.
pub(super) struct ServiceState {
    pub(super) nodes: NodeCache,
    pub(super) log_window: Arc<LogWindow>,
    pub(super) aliases: Aliases,
    pub(super) bounces: BounceTracker,
    pub(super) node_counts: NodeCounts,
    pub(super) deadlines: TimerQueue,
    pub(super) delays: Delays,
    pub(super) presences: Arc<PresenceTracker>,
    pub(super) rosters: RosterCache,
    pub(super) interests: CapsInterests,
    pub(super) retries: Retries,
    pub(super) resources: Resources,
    pub(super) metrics: Metrics,
    pub(super) truncations: TruncationLog,
}

impl ServiceState {
    /// Updates the state after a commit; `before` is the epoch of the node before the commit.
    pub(super) fn on_committed(
        &self,
        id: &NodeId,
        pending_commits: &PendingCommits,
        changes: &Changes,
        before: Option<Epoch>,
        committed: &CommitReceipt,
    ) {
        self.metrics.evictions.inc_by(committed.evicted);
        self.node_counts.count(id, pending_commits.on_committed(changes).as_ref(), changes);
        for change in changes.iter() {
            if let Change::Subscribed(jid) | Change::SubscriptionRequested(jid) = change {
                self.aliases.add(jid.to_bare());
            }
        }
        if changes.iter().any(|change| matches!(change, Change::Deleted { .. })) {
            self.deadlines.remove(id);
            self.delays.end(id, true);
            self.presences.unwatch(id);
        }
        if let Some(epoch) = before {
            self.log_window.revoke(epoch, changes.unsubscribed());
        }
    }

    /// Converts an error of the store. A corrupt record quarantines the node: the service then neither sends replies
    /// that lack stored data, nor writes to the node.
    pub(super) fn on_store_error(&self, id: &NodeId, error: StoreError) -> Error {
        let StoreError::Corrupt(record) = &error else { return Error::Unknown(error) };
        self.quarantine_node(id, record);
        Error::Quarantined
    }

    /// Returns what a read of many nodes has found, and quarantines the nodes with corrupt records.
    pub(super) fn quarantine_damaged<T>(&self, Partial { found, damaged }: Partial<T>) -> T {
        for CorruptRecord { node, record } in damaged {
            match node {
                Some(node) => self.quarantine_node(&node, &record),
                None if self.nodes.record_corruption(&record) => {
                    error!(event = "record_corrupt", record, "corrupt record; its node is unknown");
                }
                None => {}
            }
        }
        found
    }

    fn quarantine_node(&self, id: &NodeId, record: &str) {
        if self.nodes.quarantine(id) {
            error!(
                event = "node_quarantined",
                node = id.as_str(),
                record,
                "corrupt record; quarantined its node"
            );
            self.metrics.quarantined_nodes.inc();
        }
    }
}
