//! Policies of the configuration: the tables `[[policies]]`, administrators and creators.

use std::collections::BTreeMap;

use jid::BareJid;
use serde::{Deserialize, Serialize};

use crate::{
    service::{PolicyTable, RelayLimit},
    xmpp::stanza::forms::node_config,
};
use gjallar_pubsub::{self, AffiliationNotices, ConfigField, Creators, Policy};

use super::{
    invalid,
    limits::{ENVELOPE_BYTES, LimitsConfig},
};
use crate::config::{Config, ConfigError};

/// Policy for nodes whose names match a pattern; see [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PolicyConfig {
    /// Name pattern: `*` matches any text, `?` one character.
    pub nodes: String,
    /// Creators, in the format of the key `creators` of the service; `None` if the creators of the service apply.
    pub creators: Option<Vec<String>>,
    #[serde(default = "yes")]
    pub instant_nodes: bool,
    #[serde(default = "yes")]
    pub auto_create: bool,
    #[serde(default)]
    pub affiliation_notices: NoticeConfig,
    #[serde(default)]
    pub default: BTreeMap<String, FieldValue>,
    #[serde(default)]
    pub forced: BTreeMap<String, FieldValue>,
    #[serde(default)]
    pub limits: NodeLimits,
}

/// Value of a field of a node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text, a number, true, false or a list of texts")]
#[allow(missing_docs)]
pub enum FieldValue {
    Flag(bool),
    Number(u64),
    Text(String),
    Texts(Vec<String>),
}

/// See [`AffiliationNotices`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NoticeConfig {
    #[default]
    Related,
    All,
    Never,
}

/// Limits of the service that a policy may override.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct NodeLimits {
    pub max_nodes: Option<u64>,
    pub max_items: Option<u32>,
    pub max_node_bytes: Option<u64>,
    pub max_payload_bytes: Option<u32>,
    pub max_subscriptions: Option<usize>,
    pub max_affiliations: Option<usize>,
    pub max_lease_seconds: Option<u64>,
    pub require_lease: Option<bool>,
}

fn yes() -> bool {
    true
}

impl Config {
    /// Returns the policies, with administrators and creators.
    ///
    /// # Errors
    /// If an administrator is not a JID, a creator is not a domain, or a policy is contradictory.
    pub fn policies(&self) -> Result<PolicyTable, ConfigError> {
        let administrators = self.admins.iter().map(|admin| {
            BareJid::prepare(admin)
                .map_err(|error| invalid("admins", format!("{admin:?}: {error}")))
        });
        let rest = Policy {
            creators: self.creators(&self.creators).map_err(|error| invalid("creators", error))?,
            limits: self.rules(&self.limits),
            ..Policy::default()
        };
        let administrators = administrators.collect::<Result<_, _>>()?;
        let by_name = self.policies_by_name(|policy| self.policy(policy))?;
        let policies = PolicyTable::new(administrators, by_name, rest);
        let policies = policies.with_relay_limit(self.relay_limit());
        Ok(match self.component() {
            Ok(service) => policies.at(service),
            Err(_) => policies,
        })
    }

    /// Returns the policies with their limits only. The configuration may lack the JID of the service.
    pub(crate) fn limits_by_name(&self) -> Result<PolicyTable, ConfigError> {
        let of = |limits| Policy { limits, ..Policy::default() };
        let by_name = self.policies_by_name(|policy| self.limits_of(policy).map(of))?;
        Ok(PolicyTable::new(Vec::new(), by_name, of(self.rules(&self.limits))))
    }

    /// Returns the size limit of stanzas to users of other servers.
    pub(crate) fn relay_limit(&self) -> RelayLimit {
        let max_stanza_bytes = self.link.max_remote_stanza_bytes;
        RelayLimit {
            server: self.server_domain().ok().flatten(),
            max_stanza_bytes,
            max_reply_bytes: max_stanza_bytes.saturating_sub(ENVELOPE_BYTES),
        }
    }

    fn policies_by_name(
        &self,
        convert: impl Fn(&PolicyConfig) -> Result<Policy, String>,
    ) -> Result<Vec<(String, Policy)>, ConfigError> {
        let by_name = self.policies.iter().map(|policy| {
            let failed = |reason| invalid("policies", format!("{:?}: {reason}", policy.nodes));
            Ok((policy.nodes.clone(), convert(policy).map_err(failed)?))
        });
        by_name.collect()
    }

    fn limits_of(&self, policy: &PolicyConfig) -> Result<gjallar_pubsub::Limits, String> {
        let limits = policy.limits.merged_over(&self.limits, self.link.max_stanza_bytes);
        limits.check(&self.link).map_err(|error| error.to_string())?;
        Ok(self.rules(&limits))
    }

    fn policy(&self, policy: &PolicyConfig) -> Result<Policy, String> {
        if policy.nodes.is_empty() {
            return Err("nodes must not be empty: use * for all nodes".into());
        }
        let policy = Policy {
            creators: self.creators(policy.creators.as_ref().unwrap_or(&self.creators))?,
            has_own_creators: policy.creators.is_some(),
            instant_nodes: policy.instant_nodes,
            auto_create: policy.auto_create,
            affiliation_notices: match policy.affiliation_notices {
                NoticeConfig::Related => AffiliationNotices::Related,
                NoticeConfig::All => AffiliationNotices::All,
                NoticeConfig::Never => AffiliationNotices::Never,
            },
            default: settings(&policy.default)?.into_iter().map(|(_, setting)| setting).collect(),
            forced: settings(&policy.forced)?,
            max_nodes: policy.limits.max_nodes,
            limits: self.limits_of(policy)?,
            service_limits: Some(self.rules(&self.limits)),
        };
        policy.check().map_err(|refusal| refusal.to_string())?;
        Ok(policy)
    }

    fn rules(&self, limits: &LimitsConfig) -> gjallar_pubsub::Limits {
        gjallar_pubsub::Limits {
            includes_content_ids: self.compare_and_publish,
            ..limits.to_pubsub_limits()
        }
    }

    /// Returns the entities that may create nodes, parsed from a list in the configuration.
    pub(crate) fn creators(&self, creators: &[String]) -> Result<Creators, String> {
        if creators.iter().any(|creator| creator == "anyone") {
            return Ok(Creators::Anyone);
        }
        let mut domains = Vec::new();
        for creator in creators.iter().filter(|creator| *creator != "admins") {
            match BareJid::prepare(creator) {
                _ if creator == "server" => {
                    domains.extend(self.server_domain().map_err(|error| error.to_string())?);
                }
                Ok(jid) if jid.node().is_none() => domains.push(jid.to_string()),
                _ => return Err(format!("{creator:?} is not a domain")),
            }
        }
        Ok(match domains.is_empty() {
            true => Creators::Administrators,
            false => Creators::Domains(domains),
        })
    }
}

/// Parses configuration fields; returns the settings, each with the name of its field.
fn settings(fields: &BTreeMap<String, FieldValue>) -> Result<Vec<(String, ConfigField)>, String> {
    let mut settings = Vec::new();
    for (name, value) in fields {
        let name = format!("pubsub#{name}");
        let value = match value {
            FieldValue::Flag(flag) => flag.to_string(),
            FieldValue::Number(number) => number.to_string(),
            FieldValue::Text(text) => text.clone(),
            FieldValue::Texts(texts) => texts.join("\n"),
        };
        let setting = node_config::setting(&name, &value).map_err(|refusal| {
            let reason = refusal.to_string();
            if reason.starts_with(&name) { reason } else { format!("{name}: {reason}") }
        })?;
        settings.extend(setting.map(|setting| (name, setting)));
    }
    Ok(settings)
}

impl NodeLimits {
    fn merged_over(&self, service: &LimitsConfig, max_stanza_bytes: usize) -> LimitsConfig {
        let mut limits = service.clone();
        limits.max_items = self.max_items.unwrap_or(limits.max_items);
        limits.max_node_bytes = self.max_node_bytes.unwrap_or(limits.max_node_bytes);
        limits.max_payload_bytes = self.max_payload_bytes.unwrap_or(limits.max_payload_bytes);
        limits.max_subscriptions = self.max_subscriptions.unwrap_or(limits.max_subscriptions);
        limits.max_affiliations = self.max_affiliations.unwrap_or(limits.max_affiliations);
        limits.max_lease_seconds = self.max_lease_seconds.unwrap_or(limits.max_lease_seconds);
        limits.require_lease = self.require_lease.unwrap_or(limits.require_lease);
        // The items of one request must fit into the node.
        limits.fit_replies(max_stanza_bytes);
        limits
    }
}
