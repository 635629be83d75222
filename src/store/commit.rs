//! Commits in the form in which they are passed to a store, and their results.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jid::Jid;

use gjallar_pubsub::{Changes, LogEntry, NodeId};

use super::StoreError;

/// Maximum number of commits in progress at a time.
pub const MAX_PENDING_COMMITS: usize = 1024;

/// Changes at one node and the log entries to append with them.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Node that the commit changes.
    pub node: NodeId,
    /// Changes to apply.
    pub changes: Arc<Changes>,
    /// Log entries to append, in this order. The audience of an entry is an explicit list of entities, or the
    /// subscribers of the node. These are the subscribers after the commit, or before the commit if it deletes the
    /// node.
    pub notifications: Vec<Arc<LogEntry>>,
    /// Resources that lose their implicit subscription with the commit (§12.2). Pending notifications of the node are
    /// no longer sent to these resources, even after a restart.
    pub revoked: Arc<BTreeSet<Jid>>,
    /// Chain of commits that this commit belongs to. The commit fails if an earlier commit of the chain has failed.
    pub chain: CommitChain,
}

/// Sequence of commits at one node. Each is computed from the state that the commits before it produce. After a failure
/// all later commits of the chain fail.
#[derive(Clone, Debug, Default)]
pub struct CommitChain(Arc<AtomicBool>);

impl CommitChain {
    /// Returns `true` if a commit of the chain has failed. Later commits of the chain are not applied.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Records that a commit of the chain has failed.
    pub fn poison(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Callback invoked once a commit is durable or has failed. It must not block.
pub type OnCommit = Box<dyn FnOnce(Result<CommitReceipt, StoreError>) + Send>;

/// Report of a store about a commit that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReceipt {
    /// Positions of the appended log entries, one for each entry of the commit; empty if the store keeps no log.
    pub debts: Vec<LogPosition>,
    /// Number of items evicted because the node had too many items or too many bytes of items.
    pub evicted: u64,
    /// Duration of the sync to disk. If several commits share a sync, only one of them reports the duration, and the
    /// others have `None`.
    pub sync: Option<Duration>,
}

/// Position of an entry in the store's event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub(super) u64);
