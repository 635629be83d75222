//! Subscriptions of JIDs and their states (§4.2).

use jid::Jid;

use crate::SubId;

/// Subscription of a JID to a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// Subscribed JID.
    pub jid: Jid,
    /// SubID, if the JID can have several subscriptions to the node.
    pub subid: Option<SubId>,
    /// State of the subscription.
    pub state: SubscriptionState,
}

impl Subscription {
    /// Returns the identifier of the subscription in pages of a list: the JID, or JID and SubID separated by a line
    /// break, which no JID contains.
    #[must_use]
    pub fn uid(&self) -> String {
        match &self.subid {
            Some(subid) => format!("{}\n{subid}", self.jid),
            None => self.jid.to_string(),
        }
    }
}

/// State of a subscription.
///
/// SPEC: no subscription is ever `unconfigured`: every option has a value from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubscriptionState {
    /// No subscription.
    None,
    /// An owner has to approve the subscription (§8.6).
    Pending,
    /// The JID is notified of events.
    Subscribed,
}

impl SubscriptionState {
    /// Returns the name of the state in stanzas (§4.2).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Subscribed => "subscribed",
        }
    }

    /// Parses a name that [`as_str`](Self::as_str) returns.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::None, Self::Pending, Self::Subscribed]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}
