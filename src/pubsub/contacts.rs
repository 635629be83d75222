//! The roster of the owner of a node (§4.5), as far as the access models `presence` and `roster` look at it.

use std::collections::HashMap;

use jid::BareJid;

/// An entry of a roster (RFC 6121 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Whether it has the presence of the owner: its subscription is `from` or `both`.
    pub has_presence: bool,
    /// The groups that it is in.
    pub groups: Vec<String>,
}

/// The entries of a roster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contacts(HashMap<BareJid, Contact>);

impl Contacts {
    /// The entry of an entity, in any spelling of its domain.
    #[must_use]
    pub fn get(&self, entity: &BareJid) -> Option<&Contact> {
        entity.spellings().find_map(|address| self.0.get(&address))
    }
}

impl FromIterator<(BareJid, Contact)> for Contacts {
    fn from_iter<I: IntoIterator<Item = (BareJid, Contact)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
