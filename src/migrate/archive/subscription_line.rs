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
    terms: Vec<SubscriptionDetailsLine>,
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
    pub(super) fn of(special: &ConfiguredSubscription) -> Self {
        let terms = special.terms.iter().map(|terms| SubscriptionDetailsLine {
            subid: terms.subid.as_ref().map(SubId::to_string),
            options: subscribe_options::values(&terms.options).into_iter().collect(),
            public: terms.options.is_public,
            since: terms.since.0,
            warned: terms.expiry_notified,
            digested: terms.digested_to.0,
            digested_at: terms.digested_at.0,
        });
        Self { since: special.special_since, terms: terms.collect() }
    }

    pub(super) fn to_terms(&self) -> Result<Vec<SubscriptionDetails>, String> {
        self.terms.iter().map(SubscriptionDetailsLine::to_terms).collect()
    }
}

impl SubscriptionDetailsLine {
    fn to_terms(&self) -> Result<SubscriptionDetails, String> {
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
