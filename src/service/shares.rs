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
    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }

    fn remove(&mut self, other: Self) {
        self.entries -= other.entries;
        self.bytes -= other.bytes;
    }
}
