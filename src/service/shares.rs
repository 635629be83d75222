//! How much waits to be told, and at whose nodes.

use std::collections::HashMap;

use jid::BareJid;

/// What waits, in all and at the nodes of each creator.
///
/// Nobody gets more than what is free then. So one creator can fill half of the room, a second one half of the
/// rest, and so on. Only where nothing waits there is room for anything.
#[derive(Debug)]
pub(super) struct Shares {
    max: Load,
    all: Load,
    of: HashMap<BareJid, Load>,
}

/// An amount of what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Shares {
    pub(super) fn new(max: Load) -> Self {
        Self { max, all: Load::default(), of: HashMap::new() }
    }

    pub(super) fn hold_to(&mut self, max: Load) {
        self.max = max;
    }

    pub(super) fn max(&self) -> Load {
        self.max
    }

    pub(super) fn has_room(&self, owner: &BareJid, load: Load) -> bool {
        let (mut own, mut all) = (self.of.get(owner).copied().unwrap_or_default(), self.all);
        own.add(load);
        all.add(load);
        self.all == Load::default()
            || own.entries <= self.max.entries.saturating_sub(all.entries)
                && own.bytes <= self.max.bytes.saturating_sub(all.bytes)
    }

    /// What waits in all.
    pub(super) fn all(&self) -> Load {
        self.all
    }

    /// More waits. What was owed before the process started is nobody's share.
    pub(super) fn add(&mut self, owner: Option<&BareJid>, load: Load) {
        self.all.add(load);
        if let Some(owner) = owner {
            self.of.entry(owner.clone()).or_default().add(load);
        }
    }

    /// Less waits. Says whether so much had been added.
    #[must_use]
    pub(super) fn remove(&mut self, owner: Option<&BareJid>, load: Load) -> bool {
        let mut was_there = self.all.remove(load);
        if let Some(owner) = owner {
            let Some(own) = self.of.get_mut(owner) else { return false };
            was_there &= own.remove(load);
            if *own == Load::default() {
                self.of.remove(owner);
            }
        }
        was_there
    }
}

impl Load {
    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }

    /// Whether so much was there; if not, nothing is left.
    fn remove(&mut self, other: Self) -> bool {
        let left = self.entries.checked_sub(other.entries).zip(self.bytes.checked_sub(other.bytes));
        let (entries, bytes) =
            (self.entries.saturating_sub(other.entries), self.bytes.saturating_sub(other.bytes));
        *self = Self { entries, bytes };
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_was_added_is_noticed_and_leaves_nothing() {
        let owner = BareJid::new("a@b").unwrap();
        let load = |entries, bytes| Load { entries, bytes };
        let mut shares = Shares::new(load(10, 1000));
        shares.add(Some(&owner), load(2, 200));
        assert!(shares.remove(Some(&owner), load(1, 50)));
        assert!(!shares.remove(Some(&owner), load(1, 151)));
        assert_eq!(shares.all(), load(0, 0));
        assert!(!shares.remove(Some(&owner), load(1, 0)), "nobody has a share");
        assert!(shares.has_room(&owner, load(1, 500)));
    }
}
