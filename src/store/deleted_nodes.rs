//! Records of deleted nodes by account. The share of an account is the set of records that count toward the account's
//! limits on redirects and reserved names. The name of a node that was deleted without a redirect stays reserved for a
//! time.

use std::collections::{BTreeSet, HashMap};

use gjallar_pubsub::OwnerHash;

use super::{MAX_OWN_FORMER_NODES, NodeNumber};

/// Shares of all accounts. Each share has the number of redirects and the keys of the reserved names.
#[derive(Debug, Default)]
pub(super) struct FormerShares {
    redirects: HashMap<OwnerHash, usize>,
    /// Keys of the reserved names of each account. A key is the time of the deletion and the number of the node.
    reserved: HashMap<OwnerHash, BTreeSet<(u64, NodeNumber)>>,
}

impl FormerShares {
    /// Returns the number of redirects that count toward the limit of an account.
    pub(super) fn redirects_of(&self, account: &OwnerHash) -> usize {
        self.redirects.get(account).copied().unwrap_or_default()
    }

    /// Returns the key of the oldest reserved name of an account if the account has as many reserved names as it may
    /// have. Returns `None` if it has fewer.
    pub(super) fn oldest_of_full(&self, account: &OwnerHash) -> Option<(u64, NodeNumber)> {
        let reserved = self.reserved.get(account)?;
        let is_full = reserved.len() >= MAX_OWN_FORMER_NODES;
        reserved.first().copied().filter(|_| is_full)
    }

    /// Adds a deleted node. `place` is its key among the reserved names; `None` for a node with a redirect.
    pub(super) fn add(&mut self, account: OwnerHash, place: Option<(u64, NodeNumber)>) {
        match place {
            Some(place) => drop(self.reserved.entry(account).or_default().insert(place)),
            None => *self.redirects.entry(account).or_default() += 1,
        }
    }

    /// Removes a deleted node. `place` is its key among the reserved names; `None` for a node with a redirect.
    pub(super) fn remove(&mut self, account: &OwnerHash, place: Option<(u64, NodeNumber)>) {
        let Some(place) = place else {
            match self.redirects.get_mut(account) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.redirects.remove(account)),
            }
            return;
        };
        if let Some(reserved) = self.reserved.get_mut(account) {
            reserved.remove(&place);
            if reserved.is_empty() {
                self.reserved.remove(account);
            }
        }
    }
}
