//! What requests are called where they are counted.

use super::request::{GetRequest, SetRequest};

impl SetRequest {
    /// The name of its element.
    #[must_use]
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::SetAffiliations(_) => "set-affiliations",
            Self::Configure(_) => "configure",
            Self::Create(_) => "create",
            Self::Delete(_) => "delete",
            Self::SetSubscriptions(_) => "set-subscriptions",
            Self::Publish(_) => "publish",
            Self::Purge(_) => "purge",
            Self::Retract(_) => "retract",
            Self::SetOptions(_) => "set-options",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe(_) => "unsubscribe",
        }
    }
}

impl GetRequest {
    /// The name of what it asks for.
    #[must_use]
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::Affiliations(..) | Self::OwnAffiliations(..) => "affiliations",
            Self::Configuration(_) => "configuration",
            Self::Default => "default",
            Self::DefaultOptions(_) => "default-options",
            Self::Options(_) => "options",
            Self::OwnSubscriptions(..) | Self::Subscriptions(..) => "subscriptions",
            Self::Retrieve(_) => "items",
        }
    }
}
