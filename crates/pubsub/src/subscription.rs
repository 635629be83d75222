//! How a JID is subscribed to a node (§4.2).

use jid::Jid;

use crate::SubId;

/// A subscription at some node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// Whose.
    pub jid: Jid,
    /// Which of those that the JID has there, where these can be several.
    pub subid: Option<SubId>,
    /// How it is.
    pub state: SubscriptionState,
}

impl Subscription {
    /// The identifier of the subscription in pages of a node's list. JIDs have no line breaks.
    #[must_use]
    pub fn uid(&self) -> String {
        match &self.subid {
            Some(subid) => format!("{}\n{subid}", self.jid),
            None => self.jid.to_string(),
        }
    }
}

/// The state of a subscription.
///
/// SPEC: no subscription is ever `unconfigured`: every option has a value from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubscriptionState {
    /// There is no subscription.
    None,
    /// An owner has to approve it (§8.6).
    Pending,
    /// The JID hears of events.
    Subscribed,
}

impl SubscriptionState {
    /// Name of the state in stanzas (§4.2).
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
