//! Revisions of a node's configuration, so that two owners do not overwrite each other's changes unknowingly.

use jid::BareJid;

use crate::{Epoch, NodeConfig};

/// Address that replaces an erased owner in the field [`roster_owner`](ConfigRevision::roster_owner). It has no
/// account, because no server has this domain (RFC 6761).
const ERASED_OWNER: &str = "erased.invalid";

/// Revision of a node's configuration: number of changes, authors of the latest changes, and the owner whose roster
/// gives access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRevision {
    /// Number of changes of the configuration.
    pub number: u64,
    /// Entity that made the latest change. Before the first change, this is the creator.
    pub changed_by: BareJid,
    /// Number of the revision after which [`changed_by`](Self::changed_by) made all changes.
    pub base: u64,
    /// Owner that most recently changed the configuration. Changes by administrators that are not owners do not count.
    /// Before the first change by an owner, this is the creator.
    pub last_owner: BareJid,
    /// Owner whose roster gives access. This is the creator until another owner configures an access model or groups by
    /// which its own roster gives access. If this owner was erased, the field has a placeholder address. The field may
    /// be `None` at a node of store layout 9 until an owner configures such access
    /// ([`Node::inherited_revision`](crate::Node::inherited_revision)).
    pub roster_owner: Option<BareJid>,
}

impl ConfigRevision {
    /// Returns the revision of a new node.
    #[must_use]
    pub fn first(creator: BareJid) -> Self {
        let [changed_by, last_owner] = [creator.clone(), creator.clone()];
        Self { number: 0, changed_by, base: 0, last_owner, roster_owner: Some(creator) }
    }

    /// Returns the revision after one more change by this entity. `is_owner` is `false` if the entity is an
    /// administrator that is not an owner.
    #[must_use]
    pub fn next(&self, by: &BareJid, is_owner: bool) -> Self {
        let base = if self.changed_by == *by { self.base } else { self.number };
        let last_owner = if is_owner { by } else { &self.last_owner }.clone();
        let (number, changed_by) = (self.number + 1, by.clone());
        Self { number, changed_by, base, last_owner, roster_owner: self.roster_owner.clone() }
    }

    /// Returns the revision without an erased entity. The creator replaces the entity as the author of the latest
    /// changes. However, [`is_known`](Self::is_known) does not treat these changes as known to the creator. If the
    /// roster of the entity gave access, no roster gives access any more, as if the entity were no longer an owner.
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

    /// Returns [`roster_owner`](Self::roster_owner); `None` also if that owner was erased. The entity may no longer be
    /// an owner.
    pub(super) fn roster_chooser(&self) -> Option<&BareJid> {
        self.roster_owner.as_ref().filter(|entity| entity.as_str() != ERASED_OWNER)
    }

    /// Returns [`last_owner`](Self::last_owner) if a different entity, which is not an owner, changed the configuration
    /// later; otherwise `None`.
    #[must_use]
    pub fn other_last_owner(&self) -> Option<&BareJid> {
        Some(&self.last_owner).filter(|owner| **owner != self.changed_by)
    }

    /// Returns `true` if no other entity changed the configuration after revision `seen`. If this entity has seen
    /// revision `seen`, it knows all changes.
    pub(super) fn is_known(&self, entity: &BareJid, seen: u64) -> bool {
        seen == self.number
            || self.changed_by == *entity && (self.base..self.number).contains(&seen)
    }
}

/// Revision of the configuration that a form showed to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenConfig {
    /// Epoch of the node.
    pub epoch: Epoch,
    /// Number of the revision ([`ConfigRevision::number`]).
    pub number: u64,
}

/// Configuration of a node, for an entity that may change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Configuration of the node.
    pub config: NodeConfig,
    /// Revision of the configuration.
    pub seen: SeenConfig,
}
