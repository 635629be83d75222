//! Which configuration of a node somebody has seen, so that two owners do not overwrite each other's changes unknowingly.

use jid::BareJid;

use crate::{Epoch, NodeConfig};

/// The address that takes the place of an erased owner whose roster gave access. It has no account, as no server has the
/// domain (RFC 6761).
const ERASED_OWNER: &str = "erased.invalid";

/// Revision of a node's configuration: the number of changes, the entity and the owner that made the last ones, and the
/// owner whose roster gives access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRevision {
    /// How often the configuration was changed.
    pub number: u64,
    /// The entity that changed it last; the creator before the first change.
    pub changed_by: BareJid,
    /// The number before the latest changes in a row, all of which that entity made.
    pub base: u64,
    /// The owner who changed it last; the creator before the first change by an owner.
    pub last_owner: BareJid,
    /// The owner who last chose that its roster gives access, or the address that replaces it once it is erased; the creator
    /// before the first choice. `None` at a node of layout 9 that its creator had left with several owners, of whom none has chosen since.
    pub roster_owner: Option<BareJid>,
}

impl ConfigRevision {
    /// The revision of a new node.
    #[must_use]
    pub fn first(creator: BareJid) -> Self {
        let [changed_by, last_owner] = [creator.clone(), creator.clone()];
        Self { number: 0, changed_by, base: 0, last_owner, roster_owner: Some(creator) }
    }

    /// The revision after one more change, by an owner or by an administrator who is not one.
    #[must_use]
    pub fn next(&self, by: &BareJid, is_owner: bool) -> Self {
        let base = if self.changed_by == *by { self.base } else { self.number };
        let last_owner = if is_owner { by } else { &self.last_owner }.clone();
        let (number, changed_by) = (self.number + 1, by.clone());
        Self { number, changed_by, base, last_owner, roster_owner: self.roster_owner.clone() }
    }

    /// The same without an entity. The creator takes its place, but knows none of its changes. If its roster gave access,
    /// nobody has access by a roster, as after an owner has left.
    #[must_use]
    pub(super) fn without(self, entity: &BareJid, creator: &BareJid) -> Self {
        let is_entity = |jid: &BareJid| jid.is_same(entity);
        let base = if is_entity(&self.changed_by) { self.number } else { self.base };
        let or_creator = |jid| if is_entity(&jid) { creator.clone() } else { jid };
        let or_erased =
            |jid| if is_entity(&jid) { BareJid::new(ERASED_OWNER).ok() } else { Some(jid) };
        Self {
            number: self.number,
            base,
            changed_by: or_creator(self.changed_by),
            last_owner: or_creator(self.last_owner),
            roster_owner: self.roster_owner.and_then(or_erased),
        }
    }

    /// The owner who last chose that its roster gives access, if it is not erased; it may have left.
    pub(super) fn roster_chooser(&self) -> Option<&BareJid> {
        self.roster_owner.as_ref().filter(|entity| entity.as_str() != ERASED_OWNER)
    }

    /// The owner who changed it last, if an entity that is not an owner changed it since.
    #[must_use]
    pub fn other_last_owner(&self) -> Option<&BareJid> {
        Some(&self.last_owner).filter(|owner| **owner != self.changed_by)
    }

    /// Returns `true` if an entity that has seen the configuration of this number knows all changes that others made since.
    pub(super) fn is_known(&self, entity: &BareJid, seen: u64) -> bool {
        seen == self.number
            || self.changed_by == *entity && (self.base..self.number).contains(&seen)
    }
}

/// The configuration that a form showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenConfig {
    /// The node, in this life of its name.
    pub epoch: Epoch,
    /// The number of its configuration ([`ConfigRevision::number`]).
    pub number: u64,
}

/// A node's configuration for those who may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// How the node behaves.
    pub config: NodeConfig,
    /// Which configuration that is.
    pub seen: SeenConfig,
}
