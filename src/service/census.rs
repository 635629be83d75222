//! How many nodes there are, and how many of each creator.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::BareJid;

use crate::pubsub::{Change, Changes};

/// The count of the service's nodes.
#[derive(Debug)]
pub(super) struct Census(Mutex<Count>);

#[derive(Debug)]
struct Count {
    total: u64,
    of: HashMap<BareJid, u64>,
}

impl Census {
    pub(super) fn new(of: HashMap<BareJid, u64>) -> Self {
        Self(Mutex::new(Count { total: of.values().sum(), of }))
    }

    pub(super) fn total(&self) -> u64 {
        self.count_now().total
    }

    /// How many an entity created that are there.
    pub(super) fn of(&self, creator: &BareJid) -> u64 {
        self.count_now().of.get(creator).copied().unwrap_or_default()
    }

    /// Takes notice of changes at a node, which this entity had created if it was there.
    pub(super) fn count(&self, creator: Option<&BareJid>, changes: &Changes) {
        for change in changes.iter() {
            if let Change::Created(node) = change {
                self.correct(None, Some(&node.creator));
            } else if let Change::Deleted { .. } = change {
                self.correct(creator, None);
            }
        }
    }

    /// Takes notice that a node is there or not, and was there or not.
    pub(super) fn correct(&self, before: Option<&BareJid>, now: Option<&BareJid>) {
        let mut count = self.count_now();
        if let Some(creator) = now {
            count.total += 1;
            *count.of.entry(creator.clone()).or_default() += 1;
        }
        if let Some(creator) = before {
            count.total -= 1;
            if let Some(own) = count.of.get_mut(creator) {
                *own -= 1;
                if *own == 0 {
                    count.of.remove(creator);
                }
            }
        }
    }

    fn count_now(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
