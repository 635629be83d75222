//! Policies of the service for nodes with names of one pattern.

use std::mem;

use jid::is_within_domain;

use crate::{Actor, ConfigField, Error, Limits, NodeConfig};

/// Limits, defaults and creators for nodes with names of one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Entities that may create nodes, besides administrators.
    pub creators: Creators,
    /// `true` if `creators` is set for this pattern; `false` if it is the setting for all nodes.
    pub has_own_creators: bool,
    /// `true` if the service chooses names for instant nodes (§8.1.2).
    pub instant_nodes: bool,
    /// `true` if a publish request creates a missing node (§7.1.4).
    pub auto_create: bool,
    /// Entities that are sent a notice of their new affiliation.
    pub affiliation_notices: AffiliationNotices,
    /// Fields in which the default configuration differs from [`NodeConfig::initial`].
    pub default: Vec<ConfigField>,
    /// Fields with a fixed value, each with the name of the field.
    pub forced: Vec<(String, ConfigField)>,
    /// Maximum number of nodes with names of this pattern.
    pub max_nodes: Option<u64>,
    /// Limits for nodes with names of this pattern.
    pub limits: Limits,
    /// Limits of the service, if the limits of the policy differ from them. A number in a submitted configuration that
    /// is above the policy's limit, but within the service's limit, is lowered to the policy's limit.
    pub service_limits: Option<Limits>,
}

/// Entities that may create nodes (§8.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creators {
    /// Administrators only.
    Administrators,
    /// All entities.
    Anyone,
    /// Users of these domains and of all domains below them.
    Domains(Vec<String>),
}

/// Entities that are sent a notice of their new affiliation, if another entity set it (§8.9.4, a MAY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffiliationNotices {
    /// Entities that had an affiliation before, are subscribed, or have a pending subscription.
    #[default]
    Related,
    /// All entities.
    All,
    /// No entities.
    Never,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            creators: Creators::Anyone,
            has_own_creators: false,
            instant_nodes: true,
            auto_create: true,
            affiliation_notices: AffiliationNotices::Related,
            default: Vec::new(),
            forced: Vec::new(),
            max_nodes: None,
            limits: Limits::default(),
            service_limits: None,
        }
    }
}

impl Policy {
    /// Returns `true` if an entity may create nodes with names of this pattern.
    #[must_use]
    pub fn may_create(&self, actor: &Actor) -> bool {
        actor.is_administrator || self.creators.contain(actor.jid.domain().as_str())
    }

    /// Checks that the default and the fixed values are within the limits.
    ///
    /// # Errors
    /// [`Error::BadSetting`].
    pub fn check(&self) -> Result<(), Error> {
        let forced = self.forced.iter().map(|(_, setting)| setting);
        self.default.iter().chain(forced).try_for_each(|setting| setting.check(&self.limits))
    }

    /// Returns the default configuration of nodes with names of this pattern (§8.3).
    #[must_use]
    pub fn initial(&self) -> NodeConfig {
        let mut config = NodeConfig::initial(&self.limits);
        self.default.iter().for_each(|setting| config.set(setting.clone()));
        self.forced.iter().for_each(|(_, setting)| config.set(setting.clone()));
        config
    }

    /// Returns a configuration with some fields changed. A number above the limit of the policy is lowered to this
    /// limit, because clients such as Libervia copy the configuration of one node to another node, which may have lower
    /// limits. A number above the limit of the service too is an error.
    ///
    /// # Errors
    /// [`Error::BadSetting`]; [`Error::NotAcceptable`] for another value of a fixed field. The request is refused
    /// instead of corrected: an owner that asks for a closed node must not get an open one. The value that the node had
    /// before the field was fixed is accepted, because clients submit whole forms.
    pub(super) fn configured(
        &self,
        before: &NodeConfig,
        settings: &[ConfigField],
    ) -> Result<NodeConfig, Error> {
        let set = |setting: &ConfigField| {
            let mut config = before.clone();
            config.set(setting.clone());
            config
        };
        for (field, forced) in &self.forced {
            let is_other = |setting: &ConfigField| {
                mem::discriminant(setting) == mem::discriminant(forced)
                    && ![before, &set(forced)].contains(&&set(setting))
            };
            if settings.iter().any(is_other) {
                let text = format!("{field} is fixed by server policy");
                return Err(Error::NotAcceptable(text));
            }
        }
        let accepted = self.accepted_limits();
        settings.iter().try_for_each(|setting| setting.check(&accepted))?;
        let mut config = before.clone();
        settings.iter().for_each(|setting| config.set(setting.clone().within(&self.limits)));
        Ok(config)
    }

    /// Returns the limits above which numbers of a submitted configuration are refused.
    fn accepted_limits(&self) -> Limits {
        let service = self.service_limits.as_ref().unwrap_or(&self.limits);
        Limits {
            max_items: self.limits.max_items.max(service.max_items),
            max_payload_bytes: self.limits.max_payload_bytes.max(service.max_payload_bytes),
            ..self.limits.clone()
        }
    }
}

impl Creators {
    fn contain(&self, domain: &str) -> bool {
        match self {
            Self::Administrators => false,
            Self::Anyone => true,
            Self::Domains(domains) => {
                domains.iter().any(|allowed| is_within_domain(domain, allowed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_of_creators_contains_its_subdomains() {
        let creators = Creators::Domains(vec!["example.org".into()]);
        for (domain, may_create) in [
            ("example.org", true),
            ("sub.example.org", true),
            ("evilexample.org", false),
            ("example.org.evil", false),
            ("org", false),
        ] {
            assert_eq!(creators.contain(domain), may_create, "{domain}");
        }
        for allowed in ["bücher.example", "xn--bcher-kva.example"] {
            let creators = Creators::Domains(vec![allowed.into()]);
            for domain in ["bücher.example", "xn--bcher-kva.example", "a.xn--bcher-kva.example"] {
                assert!(creators.contain(domain), "{allowed}: {domain}");
            }
            assert!(!creators.contain("bucher.example"), "{allowed}");
        }
    }
}
