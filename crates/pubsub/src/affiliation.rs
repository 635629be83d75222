//! Affiliations of entities with a node (§4.1).

use std::collections::{BTreeMap, BTreeSet};

use jid::BareJid;

use crate::spellings::Spelled;

/// Affiliation of an entity with a node; [`None`](Self::None) for an entity without an affiliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Affiliation {
    /// May do everything.
    Owner,
    /// May publish, and retract all items.
    Publisher,
    /// May publish and retract its own items, but neither subscribe nor retrieve items.
    PublishOnly,
    /// May subscribe and retrieve items at nodes that are closed to other entities.
    Member,
    /// No affiliation.
    None,
    /// May do nothing.
    Outcast,
}

impl Affiliation {
    /// All affiliations, in the order of the XEP.
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Publisher, Self::PublishOnly, Self::Member, Self::None, Self::Outcast];

    /// Returns the name of the affiliation in stanzas (§4.1).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Publisher => "publisher",
            Self::PublishOnly => "publish-only",
            Self::Member => "member",
            Self::None => "none",
            Self::Outcast => "outcast",
        }
    }

    /// Parses a name that [`as_str`](Self::as_str) returns.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|affiliation| affiliation.as_str() == name)
    }

    /// Returns `true` if the access model *whitelist* admits entities with this affiliation (§4.5).
    #[must_use]
    pub fn is_listed(self) -> bool {
        matches!(self, Self::Owner | Self::Publisher | Self::Member)
    }
}

/// Affiliations of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affiliations {
    /// All affiliations except `none`.
    of: BTreeMap<BareJid, Affiliation>,
    /// Outcasts whose address differs from its [fold](BareJid::fold), by this fold.
    folded_outcasts: BTreeMap<String, BTreeSet<BareJid>>,
    /// Number of outcasts for each folded localpart. A lookup of an address folds its domain only if some outcast has
    /// the same folded localpart, because folding takes a hundred times as long as the rest of the lookup.
    outcasts: BTreeMap<String, usize>,
    spelled: Spelled,
}

impl Affiliations {
    /// Sets the affiliation of an address.
    pub fn set(&mut self, address: BareJid, affiliation: Affiliation) {
        let fold = address.fold();
        if *fold != *address.as_str() {
            let fold = fold.into_owned();
            if affiliation == Affiliation::Outcast {
                self.folded_outcasts.entry(fold).or_default().insert(address.clone());
            } else if let Some(outcasts) = self.folded_outcasts.get_mut(&fold) {
                outcasts.remove(&address);
                if outcasts.is_empty() {
                    self.folded_outcasts.remove(&fold);
                }
            }
        }
        self.count(&address, affiliation);
        match affiliation {
            Affiliation::None => self.of.remove(&address),
            _ => self.of.insert(address, affiliation),
        };
    }

    /// Updates `outcasts` and `spelled` before an address gets the affiliation `now`.
    fn count(&mut self, address: &BareJid, now: Affiliation) {
        let before = self.of_address(address);
        match (before == Affiliation::None, now == Affiliation::None) {
            (true, false) => self.spelled.add(address),
            (false, true) => self.spelled.remove(address),
            _ => {}
        }
        let local = address.folded_localpart();
        match (before == Affiliation::Outcast, now == Affiliation::Outcast) {
            (false, true) => *self.outcasts.entry(local.into_owned()).or_default() += 1,
            (true, false) => {
                if let Some(number) = self.outcasts.get_mut(&*local) {
                    *number -= 1;
                    if *number == 0 {
                        self.outcasts.remove(&*local);
                    }
                }
            }
            _ => {}
        }
    }

    /// Returns the affiliation of an entity. If its address has no affiliation, the affiliation of the address in
    /// another spelling of its domain applies. If the address has no affiliation in any spelling, but the address of an
    /// outcast has the same fold, the result is [`Affiliation::Outcast`].
    #[must_use]
    pub fn of(&self, entity: &BareJid) -> Affiliation {
        let named = || self.spelled.others(entity).find_map(|other| self.of.get(other));
        match self.of.get(entity).or_else(named) {
            Some(affiliation) => *affiliation,
            None if self.has_outcast_like(entity) => Affiliation::Outcast,
            None => Affiliation::None,
        }
    }

    /// Returns `true` if an outcast has the same fold as this address, which has no affiliation.
    fn has_outcast_like(&self, address: &BareJid) -> bool {
        if self.outcasts.is_empty() || !self.outcasts.contains_key(&*address.folded_localpart()) {
            return false;
        }
        let fold = address.fold();
        let is_outcast = |folded: BareJid| self.of_address(&folded) == Affiliation::Outcast;
        self.folded_outcasts.contains_key(&*fold)
            || (*fold != *address.as_str() && BareJid::new(&fold).is_ok_and(is_outcast))
    }

    /// Returns the affiliation of exactly this address.
    #[must_use]
    pub fn of_address(&self, address: &BareJid) -> Affiliation {
        self.of.get(address).copied().unwrap_or(Affiliation::None)
    }

    /// Returns all affiliations except `none`.
    pub fn iter(&self) -> impl Iterator<Item = (&BareJid, Affiliation)> {
        self.of.iter().map(|(entity, affiliation)| (entity, *affiliation))
    }

    /// Returns the number of affiliations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Returns `true` if no entity has an affiliation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}
