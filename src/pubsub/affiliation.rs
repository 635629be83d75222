//! The standing of an entity at a node (§4.1).

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
