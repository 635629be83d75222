//! Load of the backlog (pending log entries in memory), in total and for the nodes of each creator's account.

use std::collections::HashMap;

use jid::AccountKey;

use gjallar_pubsub::Limits;

/// Load of the backlog, in total and for the nodes of each creator's account (the share of the account).
///
/// An entry fits if, once it is added, the share of its account is at most as large as the room that is still free. So
/// one creator can fill half of the backlog, a second one half of the rest, and so on. An empty backlog accepts an
/// entry of any size.
#[derive(Debug)]
pub(super) struct Shares {
    max: Load,
    all: Load,
    of: HashMap<AccountKey, Load>,
}

/// Load of entries in the backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Number of entries.
    pub entries: usize,
    /// Approximate bytes in memory.
    pub bytes: usize,
    /// Number of recipients of all entries; an entity counts once for each entry.
    pub notifications: usize,
}

impl Shares {
    pub(super) fn new(max: Load) -> Self {
        Self { max, all: Load::default(), of: HashMap::new() }
    }

    pub(super) fn set_limits(&mut self, max: Load) {
        self.max = max;
    }

    pub(super) fn max(&self) -> Load {
        self.max
    }

    /// Checks that an additional load fits.
    ///
    /// # Errors
    /// The configuration key of the backlog limit that leaves too little room for the share of `owner`.
    pub(super) fn check(&self, owner: &AccountKey, load: Load) -> Result<(), &'static str> {
        if self.all == Load::default() {
            return Ok(());
        }
        let (mut own, mut all) = (self.of.get(owner).copied().unwrap_or_default(), self.all);
        own.add(load);
        all.add(load);
        let is_full = |of: fn(Load) -> usize| of(own) > of(self.max).saturating_sub(of(all));
        match () {
            () if is_full(|load| load.entries) => Err("limits.max_backlog_events"),
            () if is_full(|load| load.bytes) => Err("limits.max_backlog_bytes"),
            () if is_full(|load| load.notifications) => Err("limits.max_backlog_notifications"),
            () => Ok(()),
        }
    }

    /// Returns the total load.
    pub(super) fn all(&self) -> Load {
        self.all
    }

    /// Adds load. Entries restored from the store have no owner, so they count only in the total.
    pub(super) fn add(&mut self, owner: Option<&AccountKey>, load: Load) {
        self.all.add(load);
        if let Some(owner) = owner {
            self.of.entry(owner.clone()).or_default().add(load);
        }
    }

    /// Removes load. Returns `false` if it is more than was added.
    #[must_use]
    pub(super) fn remove(&mut self, owner: Option<&AccountKey>, load: Load) -> bool {
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
    /// Returns the limits of the backlog.
    #[must_use]
    pub fn max(limits: &Limits) -> Self {
        Self {
            entries: limits.max_backlog_events,
            bytes: limits.max_backlog_bytes,
            notifications: limits.max_backlog_notifications,
        }
    }

    /// Returns a load of `bytes` bytes without log entries and notifications.
    pub(super) fn of_bytes(bytes: usize) -> Self {
        Self { bytes, ..Self::default() }
    }

    fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.notifications = self.notifications.saturating_add(other.notifications);
    }

    /// Subtracts `other`. Returns `false` if a number would become negative. That number then becomes 0.
    fn remove(&mut self, other: Self) -> bool {
        let was_there = self.entries >= other.entries
            && self.bytes >= other.bytes
            && self.notifications >= other.notifications;
        self.entries = self.entries.saturating_sub(other.entries);
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.notifications = self.notifications.saturating_sub(other.notifications);
        was_there
    }
}

#[cfg(test)]
mod tests {
    use jid::BareJid;

    use super::*;

    #[test]
    fn removal_of_more_than_was_added_leaves_zero() {
        let owner = AccountKey::of(&BareJid::new("a@b").unwrap());
        let load = |entries, bytes, notifications| Load { entries, bytes, notifications };
        let mut shares = Shares::new(load(10, 1000, 100));
        for more in [load(1, 151, 10), load(1, 150, 11)] {
            shares.add(Some(&owner), load(2, 200, 20));
            assert!(shares.remove(Some(&owner), load(1, 50, 10)));
            assert!(!shares.remove(Some(&owner), more));
            assert_eq!(shares.all(), Load::default());
        }
        assert!(!shares.remove(Some(&owner), load(1, 0, 0)), "nobody has a share");
        assert_eq!(shares.check(&owner, load(1, 500, 50)), Ok(()));
    }

    #[test]
    fn a_share_is_the_free_part_of_each_limit() {
        let owner = AccountKey::of(&BareJid::new("a@b").unwrap());
        let load = |entries, bytes, notifications| Load { entries, bytes, notifications };
        let mut shares = Shares::new(load(10, 1000, 100));
        assert_eq!(shares.check(&owner, load(11, 1001, 101)), Ok(()), "nothing waits");
        shares.add(None, load(2, 200, 20));
        assert_eq!(shares.check(&owner, load(4, 400, 40)), Ok(()));
        for (more, limit) in [
            (load(5, 400, 40), "limits.max_backlog_events"),
            (load(4, 401, 40), "limits.max_backlog_bytes"),
            (load(4, 400, 41), "limits.max_backlog_notifications"),
        ] {
            assert_eq!(shares.check(&owner, more), Err(limit));
        }
    }
}
