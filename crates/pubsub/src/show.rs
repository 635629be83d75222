//! States of availability (RFC 6121 §4.7.2.1) that subscriptions can select (§16.4.2).

/// State of availability of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Show {
    /// Away for a short time.
    Away,
    /// Interested in chatting.
    Chat,
    /// Do not disturb.
    Dnd,
    /// Available without a more specific state.
    Online,
    /// Away for a long time.
    Xa,
}

impl Show {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Away, Self::Chat, Self::Dnd, Self::Online, Self::Xa];
}

/// Set of states of availability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShowSet(u8);

impl ShowSet {
    /// All states.
    pub const ALL: Self = Self(0b1_1111);

    /// Returns `true` if the set contains a state.
    #[must_use]
    pub fn has(self, show: Show) -> bool {
        self.0 & (1 << show as u8) != 0
    }

    /// Returns the set as a number for the store.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Returns the set for a number; unknown bits are ignored.
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
