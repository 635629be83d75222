//! The roster of the owner of a node (§4.5), as far as the access models `presence` and `roster` look at it.

use std::collections::{BTreeSet, HashMap};

use jid::BareJid;

use crate::{config_field::MAX_GROUP_BYTES, spellings::Spelled};

/// An entry of a roster (RFC 6121 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RosterItem {
    /// Whether it has the presence of the owner: its subscription is `from` or `both`.
    pub has_presence: bool,
    /// The groups that it is in.
    pub groups: Vec<String>,
}

/// The entries of a roster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    of: HashMap<BareJid, RosterItem>,
    spelled: Spelled,
}

impl Roster {
    /// The entry of an entity, in any spelling of its domain.
    #[must_use]
    pub fn get(&self, entity: &BareJid) -> Option<&RosterItem> {
        let other = || self.spelled.others(entity).find_map(|address| self.of.get(address));
        self.of.get(entity).or_else(other)
    }

    /// The groups of all entries that `roster_groups_allowed` can name, in their order.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<&str> {
        let groups = self.of.values().flat_map(|entry| &entry.groups).map(String::as_str);
        let is_line = |group: &&str| !group.is_empty() && !group.contains(['\n', '\r']);
        groups.filter(is_line).filter(|group| group.len() <= MAX_GROUP_BYTES).collect()
    }
}

impl FromIterator<(BareJid, RosterItem)> for Roster {
    fn from_iter<I: IntoIterator<Item = (BareJid, RosterItem)>>(entries: I) -> Self {
        let mut contacts = Self::default();
        for (entity, contact) in entries {
            if !contacts.of.contains_key(&entity) {
                contacts.spelled.add(&entity);
            }
            contacts.of.insert(entity, contact);
        }
        contacts
    }
}
