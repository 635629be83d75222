//! Options and SubIDs of a subscription in a line of an archive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::xmpp::stanza::forms::subscribe_options;
use gjallar_pubsub::{
    ConfiguredSubscription, Sequence, SubId, SubscriptionDetails, SubscriptionOption,
    SubscriptionOptions, Timestamp,
};

/// Options and SubIDs of a subscription.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ConfiguredSubscriptionLine {
    pub(super) since: u64,
    #[serde(rename = "terms")]
    details: Vec<SubscriptionDetailsLine>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SubscriptionDetailsLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subid: Option<String>,
    /// Fields of the form `pubsub#subscribe_options`.
    options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    public: bool,
    since: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    warned: bool,
    digested: u64,
    digested_at: u64,
}

impl ConfiguredSubscriptionLine {
    pub(super) fn of(configured: &ConfiguredSubscription) -> Self {
        let details = configured.details.iter().map(|details| SubscriptionDetailsLine {
            subid: details.subid.as_ref().map(SubId::to_string),
            options: subscribe_options::values(&details.options).into_iter().collect(),
            public: details.options.is_public,
            since: details.since.0,
            warned: details.expiry_notified,
            digested: details.digested_to.0,
            digested_at: details.digested_at.0,
        });
        Self { since: configured.options_since, details: details.collect() }
    }

    pub(super) fn to_details(&self) -> Result<Vec<SubscriptionDetails>, String> {
        self.details.iter().map(SubscriptionDetailsLine::to_details).collect()
    }
}

impl SubscriptionDetailsLine {
    fn to_details(&self) -> Result<SubscriptionDetails, String> {
        let settings =
            self.options.iter().map(|(var, value)| subscribe_options::setting(var, value));
        let settings: Result<Vec<SubscriptionOption>, _> = settings.collect();
        let settings = settings.map_err(|refusal| refusal.to_string())?;
        Ok(SubscriptionDetails {
            subid: self.subid.as_deref().map(SubId::new),
            options: SubscriptionOptions {
                is_public: self.public,
                ..SubscriptionOptions::restored(settings)
            },
            since: Timestamp(self.since),
            expiry_notified: self.warned,
            digested_to: Sequence(self.digested),
            digested_at: Timestamp(self.digested_at),
        })
    }
}
