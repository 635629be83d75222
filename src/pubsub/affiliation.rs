//! The standing of an entity at a node (§4.1).

use std::collections::{BTreeMap, BTreeSet};

use jid::BareJid;

/// What an entity is at a node. Absence of an affiliation is `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Affiliation {
    /// May do everything.
    Owner,
    /// May publish, and retract or purge what is there.
    Publisher,
    /// May publish and retract its own items, but neither subscribe nor retrieve.
    PublishOnly,
    /// May subscribe and retrieve where that is closed to others.
    Member,
    /// Nothing in particular.
    None,
    /// May do nothing.
    Outcast,
}

impl Affiliation {
    /// Every affiliation, in the order of the XEP.
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Publisher, Self::PublishOnly, Self::Member, Self::None, Self::Outcast];

    /// Whether it opens a node of the access model *whitelist* (§4.5).
    #[must_use]
    pub fn is_listed(self) -> bool {
        matches!(self, Self::Owner | Self::Publisher | Self::Member)
    }
}

/// The affiliations of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affiliations {
    /// All affiliations but `none`.
    of: BTreeMap<BareJid, Affiliation>,
    /// The outcasts whose addresses are not their own folds, by fold.
    folded_outcasts: BTreeMap<String, BTreeSet<BareJid>>,
    /// Number of outcasts, and of addresses whose domains have two spellings. Looking for other spellings, or for outcasts
    /// by fold, converts the domain; it takes a hundred times as long as a lookup.
    outcasts: usize,
    spelled: usize,
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
        let is_spelled = usize::from(address.other_spellings().next().is_some());
        let before = match affiliation {
            Affiliation::None => self.of.remove(&address),
            _ => self.of.insert(address, affiliation),
        };
        let is_outcast = |affiliation| usize::from(affiliation == Some(Affiliation::Outcast));
        let is_there = |affiliation: Option<_>| usize::from(affiliation.is_some());
        let now = Some(affiliation).filter(|affiliation| *affiliation != Affiliation::None);
        self.outcasts = self.outcasts + is_outcast(now) - is_outcast(before);
        self.spelled = self.spelled + is_spelled * is_there(now) - is_spelled * is_there(before);
    }

    /// The affiliation of an entity: that of its address, otherwise that of another spelling of its domain. An entity
    /// without one is an outcast if an outcast has the same fold.
    #[must_use]
    pub fn of(&self, entity: &BareJid) -> Affiliation {
        let spelled = Some(entity).filter(|_| self.spelled > 0);
        let mut others = spelled.into_iter().flat_map(|entity| entity.other_spellings());
        let named = || others.find_map(|other| self.of.get(&other));
        match self.of.get(entity).or_else(named) {
            Some(affiliation) => *affiliation,
            None if self.has_outcast_like(entity) => Affiliation::Outcast,
            None => Affiliation::None,
        }
    }

    /// Whether an outcast has the same fold as an address without an affiliation.
    fn has_outcast_like(&self, address: &BareJid) -> bool {
        if self.outcasts == 0 {
            return false;
        }
        let fold = address.fold();
        let is_outcast = |folded: BareJid| self.of_address(&folded) == Affiliation::Outcast;
        self.folded_outcasts.contains_key(&*fold)
            || (*fold != *address.as_str() && BareJid::new(&fold).is_ok_and(is_outcast))
    }

    /// The affiliation of exactly this address.
    #[must_use]
    pub fn of_address(&self, address: &BareJid) -> Affiliation {
        self.of.get(address).copied().unwrap_or(Affiliation::None)
    }

    /// All affiliations but `none`.
    pub fn iter(&self) -> impl Iterator<Item = (&BareJid, Affiliation)> {
        self.of.iter().map(|(entity, affiliation)| (entity, *affiliation))
    }

    /// The number of affiliations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether no entity has an affiliation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}
