//! What a line of an archive says of a subscription with options or SubIDs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    pubsub::{OptionSetting, Options, Special, SubId, Terms, Timestamp},
    wire::form::subscribe_options,
};

/// What tells a subscription from a plain one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SpecialLine {
    pub(super) since: u64,
    terms: Vec<TermsLine>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TermsLine {
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

impl SpecialLine {
    pub(super) fn of(special: &Special) -> Self {
        let terms = special.terms.iter().map(|terms| TermsLine {
            subid: terms.subid.as_ref().map(SubId::to_string),
            options: subscribe_options::values(&terms.options).into_iter().collect(),
            public: terms.options.is_public,
            since: terms.since.0,
            warned: terms.is_warned,
            digested: terms.digested,
            digested_at: terms.digested_at.0,
        });
        Self { since: special.special_since, terms: terms.collect() }
    }

    pub(super) fn to_terms(&self) -> Result<Vec<Terms>, String> {
        self.terms.iter().map(TermsLine::to_terms).collect()
    }
}

impl TermsLine {
    fn to_terms(&self) -> Result<Terms, String> {
        let settings =
            self.options.iter().map(|(var, value)| subscribe_options::setting(var, value));
        let settings: Result<Vec<OptionSetting>, _> = settings.collect();
        let settings = settings.map_err(|refusal| refusal.to_string())?;
        Ok(Terms {
            subid: self.subid.as_deref().map(SubId::new),
            options: Options { is_public: self.public, ..Options::restored(settings) },
            since: Timestamp(self.since),
            is_warned: self.warned,
            digested: self.digested,
            digested_at: Timestamp(self.digested_at),
        })
    }
}
