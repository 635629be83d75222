//! How much waits to be told, and at whose nodes.

use std::collections::HashMap;

use jid::BareJid;

/// What waits, in all and at the nodes of each creator.
///
/// Whoever has as much as is free gets no more. So one creator can fill half of the room, two a third each,
/// and some is always left for those who have little.
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

    pub(super) fn has_room(&self, owner: &BareJid) -> bool {
        let own = self.of.get(owner).copied().unwrap_or_default();
        own.entries < self.max.entries.saturating_sub(self.all.entries)
            && own.bytes < self.max.bytes.saturating_sub(self.all.bytes)
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

    /// Less waits.
    pub(super) fn remove(&mut self, owner: Option<&BareJid>, load: Load) {
        self.all.remove(load);
        if let Some(owner) = owner
            && let Some(own) = self.of.get_mut(owner)
        {
            own.remove(load);
            if *own == Load::default() {
                self.of.remove(owner);
            }
        }
    }
}

impl Load {
    /// One entry, without what it takes.
    pub(super) const ENTRY: Self = Self { entries: 1, bytes: 0 };

    pub(super) fn bytes(bytes: usize) -> Self {
        Self { entries: 0, bytes }
    }

    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }

    fn remove(&mut self, other: Self) {
        self.entries -= other.entries;
        self.bytes -= other.bytes;
    }
}
