//! Commits of a node that are on their way to the disk.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::BareJid;
use tokio::sync::Notify;

use crate::store::CommitChain;
use gjallar_pubsub::{Change, Changes, ItemId};

/// What is known of a node's commits before they are settled.
#[derive(Debug, Default)]
pub(super) struct PendingCommits {
    state: Mutex<PendingCommitTable>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct PendingCommitTable {
    commits: usize,
    /// The items that they publish or retract, each with the number of these changes.
    items: HashMap<ItemId, usize>,
    /// How many of them may change items that they do not name, apart from evictions.
    sweeping: usize,
    chain: CommitChain,
    /// Whose node it is, as far as that is settled.
    creator: Option<BareJid>,
}

impl PendingCommits {
    /// One more is on its way.
    pub(super) fn begin(&self, changes: &Changes) -> CommitChain {
        let mut state = self.state();
        state.commits += 1;
        state.sweeping += usize::from(is_sweeping(changes));
        for item in items_of(changes) {
            *state.items.entry(item.clone()).or_default() += 1;
        }
        state.chain.clone()
    }

    /// Changes are true. Says whose node it was before.
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

    /// One is settled.
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
            self.settled.notify_waiters();
        }
    }

    /// Returns `true` if one of them may change one of these items, apart from evictions.
    pub(super) fn changes_any(&self, items: &[ItemId]) -> bool {
        let state = self.state();
        state.sweeping > 0 || items.iter().any(|item| state.items.contains_key(item))
    }

    /// Returns `true` if one has failed, so that nobody knows how the node is.
    pub(super) fn is_broken(&self) -> bool {
        self.state().chain.is_poisoned()
    }

    /// Waits until none is on its way. Says whether all became true.
    pub(super) async fn wait_committed(&self) -> bool {
        loop {
            let settled = self.settled.notified();
            {
                let state = self.state();
                if state.commits == 0 {
                    return !state.chain.is_poisoned();
                }
            }
            settled.await;
        }
    }

    /// Whose node it was when that was last known.
    pub(super) fn creator(&self) -> Option<BareJid> {
        self.state().creator.clone()
    }

    /// The node was read, and this entity created it if it is there.
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
