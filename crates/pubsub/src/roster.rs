//! Roster of a node's owner (§4.5), as far as the access models `presence` and `roster` need it.

use std::collections::{BTreeSet, HashMap};

use jid::BareJid;

use crate::{config_field::MAX_GROUP_BYTES, spellings::Spelled};

/// Entry of a roster (RFC 6121 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RosterItem {
    /// `true` if the contact receives the presence of the owner: the subscription is `from` or `both`.
    pub has_presence: bool,
    /// Groups of the contact.
    pub groups: Vec<String>,
}

/// Entries of a roster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    of: HashMap<BareJid, RosterItem>,
    spelled: Spelled,
}

impl Roster {
    /// Returns the entry of an entity, in any spelling of its domain.
    #[must_use]
    pub fn get(&self, entity: &BareJid) -> Option<&RosterItem> {
        let other = || self.spelled.others(entity).find_map(|address| self.of.get(address));
        self.of.get(entity).or_else(other)
    }

    /// Returns the names of all groups in the roster, sorted. Excludes names that `pubsub#roster_groups_allowed` cannot
    /// contain: empty names, names with a line break, and names of more than 100 bytes.
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
