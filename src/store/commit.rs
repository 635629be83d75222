//! What a store is asked to make true, and what comes of it.

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

/// Commits that may be under way.
pub const MAX_PENDING_COMMITS: usize = 1024;

/// Changes at a node, and what is owed once they are true.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Where.
    pub node: NodeId,
    /// What.
    pub changes: Arc<Changes>,
    /// What is owed then, in this order: to entities, or to those who are subscribed when it is true, or, of a
    /// deletion, were.
    pub notifications: Vec<Arc<LogEntry>>,
    /// Resources that lose their implicit subscription by it (§12.2). Pending notifications of the node go to them neither
    /// now nor after a restart.
    pub revoked: Arc<BTreeSet<Jid>>,
    /// What it rests on.
    pub chain: CommitChain,
}

/// Commits at one node, each of which was decided on what those before it make true.
#[derive(Clone, Debug, Default)]
pub struct CommitChain(Arc<AtomicBool>);

impl CommitChain {
    /// Returns `true` if a commit has failed. None of the chain is carried out after that.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// A commit has failed.
    pub fn poison(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What has to be done when a commit is true, or has failed. It must not wait for anything.
pub type OnCommit = Box<dyn FnOnce(Result<CommitReceipt, StoreError>) + Send>;

/// What a commit did besides what it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReceipt {
    /// What is owed since then, one for each notification; none if the store owes nothing.
    pub debts: Vec<LogPosition>,
    /// How many items went because there were too many, or too many bytes of them.
    pub evicted: u64,
    /// How long the sync took that it shared with others; one of these tells it.
    pub sync: Option<Duration>,
}

/// A notification that is owed, as the store knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub(super) u64);
