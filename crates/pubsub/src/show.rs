//! How available an entity is (RFC 6121 §4.7.2.1), as far as subscriptions look at it (§16.4.2).

/// How a resource shows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Show {
    /// Away for a while.
    Away,
    /// Interested in chatting.
    Chat,
    /// Does not want to be disturbed.
    Dnd,
    /// Available, and nothing else is said.
    Online,
    /// Away for long.
    Xa,
}

impl Show {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Away, Self::Chat, Self::Dnd, Self::Online, Self::Xa];
}

/// Some of the ways in which a resource can show itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShowSet(u8);

impl ShowSet {
    /// Any.
    pub const ALL: Self = Self(0b1_1111);

    /// Returns `true` if one is among them.
    #[must_use]
    pub fn has(self, show: Show) -> bool {
        self.0 & (1 << show as u8) != 0
    }

    /// These as a number, for a store.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Those of a number.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Show> for ShowSet {
    fn from_iter<I: IntoIterator<Item = Show>>(shows: I) -> Self {
        Self(shows.into_iter().fold(0, |bits, show| bits | 1 << show as u8))
    }
}
