//! The names of affiliations and of states of subscriptions, both ways.

use gjallar_pubsub::{Affiliation, SubscriptionState};

/// The name of an affiliation on the wire (§4.1).
#[must_use]
pub fn affiliation_name(affiliation: Affiliation) -> &'static str {
    match affiliation {
        Affiliation::Owner => "owner",
        Affiliation::Publisher => "publisher",
        Affiliation::PublishOnly => "publish-only",
        Affiliation::Member => "member",
        Affiliation::None => "none",
        Affiliation::Outcast => "outcast",
    }
}

/// The name of a state on the wire (§4.2).
#[must_use]
pub fn state_name(state: SubscriptionState) -> &'static str {
    match state {
        SubscriptionState::None => "none",
        SubscriptionState::Pending => "pending",
        SubscriptionState::Subscribed => "subscribed",
    }
}

/// The state of this name.
#[must_use]
pub fn state_named(name: &str) -> Option<SubscriptionState> {
    let all = [SubscriptionState::None, SubscriptionState::Pending, SubscriptionState::Subscribed];
    all.into_iter().find(|state| state_name(*state) == name)
}

/// The affiliation of this name.
#[must_use]
pub fn affiliation_named(name: &str) -> Option<Affiliation> {
    Affiliation::ALL.into_iter().find(|affiliation| affiliation_name(*affiliation) == name)
}
