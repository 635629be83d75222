//! Commits of a node that are not durable yet.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::BareJid;
use tokio::sync::Notify;

use crate::store::CommitChain;
use gjallar_pubsub::{Change, Changes, ItemId};

/// Pending commits of a node, and the creator of the node as of the last durable commit.
#[derive(Debug, Default)]
pub(super) struct PendingCommits {
    state: Mutex<PendingCommitTable>,
    all_ended: Notify,
}

#[derive(Debug, Default)]
struct PendingCommitTable {
    commits: usize,
    /// Items that the pending commits publish or retract, each with the number of its publications and retractions.
    items: HashMap<ItemId, usize>,
    /// Number of pending commits that may change any item of the node ([`is_sweeping`]).
    sweeping: usize,
    chain: CommitChain,
    /// Creator of the node as of the last durable commit; `None` if there is no node.
    creator: Option<BareJid>,
}

impl PendingCommits {
    /// Adds a commit. Returns the commit chain.
    pub(super) fn begin(&self, changes: &Changes) -> CommitChain {
        let mut state = self.state();
        state.commits += 1;
        state.sweeping += usize::from(is_sweeping(changes));
        for item in items_of(changes) {
            *state.items.entry(item.clone()).or_default() += 1;
        }
        state.chain.clone()
    }

    /// Sets the durable creator of the node to the one after a commit that has become durable. Returns the previous
    /// creator.
    pub(super) fn on_committed(&self, changes: &Changes) -> Option<BareJid> {
        let mut state = self.state();
        let before = state.creator.clone();
        for change in changes.iter() {
            match change {
                Change::Created(node) => state.creator = Some(node.creator.clone()),
                Change::Deleted { .. } => state.creator = None,
                _ => {}
            }
        }
        before
    }

    /// Removes a completed or failed commit.
    pub(super) fn end(&self, changes: &Changes) {
        let mut state = self.state();
        state.commits -= 1;
        state.sweeping -= usize::from(is_sweeping(changes));
        for item in items_of(changes) {
            if let Some(number) = state.items.get_mut(item) {
                *number -= 1;
                if *number == 0 {
                    state.items.remove(item);
                }
            }
        }
        if state.commits == 0 {
            drop(state);
            self.all_ended.notify_waiters();
        }
    }

    /// Returns `true` if a pending commit may change one of these items, apart from evictions.
    pub(super) fn changes_any(&self, items: &[ItemId]) -> bool {
        let state = self.state();
        state.sweeping > 0 || items.iter().any(|item| state.items.contains_key(item))
    }

    /// Returns `true` if a commit has failed, so that the state of the node is unknown.
    pub(super) fn is_broken(&self) -> bool {
        self.state().chain.is_poisoned()
    }

    /// Waits until no commit is pending. Returns `true` if all succeeded.
    pub(super) async fn wait_committed(&self) -> bool {
        loop {
            let all_ended = self.all_ended.notified();
            {
                let state = self.state();
                if state.commits == 0 {
                    return !state.chain.is_poisoned();
                }
            }
            all_ended.await;
        }
    }

    /// Returns the creator of the node as of the last durable commit.
    pub(super) fn creator(&self) -> Option<BareJid> {
        self.state().creator.clone()
    }

    /// Starts a new commit chain after the node was read; `creator` is `None` if there is no node.
    pub(super) fn reset(&self, creator: Option<BareJid>) {
        let mut state = self.state();
        state.chain = CommitChain::default();
        state.creator = creator;
    }

    fn state(&self) -> MutexGuard<'_, PendingCommitTable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if changes create, configure, purge or delete the node.
fn is_sweeping(changes: &Changes) -> bool {
    changes.iter().any(|change| {
        matches!(
            change,
            Change::Created(_) | Change::Configured(_) | Change::Purged | Change::Deleted(_)
        )
    })
}

fn items_of(changes: &Changes) -> impl Iterator<Item = &ItemId> {
    changes.iter().filter_map(|change| match change {
        Change::Published(item) => Some(&item.id),
        Change::Retracted(id) => Some(id),
        _ => None,
    })
}
