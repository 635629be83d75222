//! What the service's configuration says of nodes with some names.

use std::mem;

use jid::with_u_labels;

use crate::{Actor, ConfigField, Error, Limits, NodeConfig};

/// What holds at a node because of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who may create it; administrators always may.
    pub creators: Creators,
    /// Whether these creators are named for nodes of such names, and not for all nodes.
    pub has_own_creators: bool,
    /// Whether it may be one whose name the service chooses (§8.1.2).
    pub instant_nodes: bool,
    /// Whether it is created when something is published to it (§7.1.4).
    pub auto_create: bool,
    /// Which entities are sent a notice of their new affiliation.
    pub affiliation_notices: AffiliationNotices,
    /// How its configuration differs from the service's default, if its creator says nothing else.
    pub default: Vec<ConfigField>,
    /// What nobody can have otherwise, each with the name of its field.
    pub forced: Vec<(String, ConfigField)>,
    /// How many such nodes there may be.
    pub max_nodes: Option<u64>,
    /// How much of each thing it takes.
    pub limits: Limits,
    /// The limits of the service, if those of the policy are others. Numbers of a submitted configuration that are above
    /// the policy's limits only are lowered.
    pub service_limits: Option<Limits>,
}

/// Who may create nodes (§8.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creators {
    /// Administrators only.
    Administrators,
    /// Everyone.
    Anyone,
    /// The users of these domains and of all domains below them.
    Domains(Vec<String>),
}

/// Entities that are sent a notice of their new affiliation, if another entity set it (§8.9.4, where it is a MAY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffiliationNotices {
    /// Those that had an affiliation before, are subscribed, or wait for that.
    #[default]
    Related,
    /// All.
    All,
    /// None.
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
    /// Returns `true` if an entity may create such nodes.
    #[must_use]
    pub fn may_create(&self, actor: &Actor) -> bool {
        actor.is_administrator || self.creators.contain(actor.jid.domain().as_str())
    }

    /// Finds what is past a limit.
    ///
    /// # Errors
    /// [`Error::BadSetting`].
    pub fn check(&self) -> Result<(), Error> {
        let forced = self.forced.iter().map(|(_, setting)| setting);
        self.default.iter().chain(forced).try_for_each(|setting| setting.check(&self.limits))
    }

    /// The configuration that such a node has if its creator says nothing else (§8.3).
    #[must_use]
    pub fn initial(&self) -> NodeConfig {
        let mut config = NodeConfig::initial(&self.limits);
        self.default.iter().for_each(|setting| config.set(setting.clone()));
        self.forced.iter().for_each(|(_, setting)| config.set(setting.clone()));
        config
    }

    /// A configuration with some settings changed. Numbers above the limits of the policy are lowered to these, unless they
    /// are above the limits of the service too: clients such as Libervia copy the configuration of one node to another one,
    /// which may have lower limits.
    ///
    /// # Errors
    /// [`Error::BadSetting`]; [`Error::NotAcceptable`] for a setting that is not what is forced. It is refused and
    /// not replaced: who asks for a closed node must not get an open one. What a node has had since before it was forced
    /// may be said again, for clients send whole forms.
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

    /// The limits of the numbers in a submitted configuration.
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
            Self::Domains(domains) => domains.iter().any(|allowed| {
                with_u_labels(domain)
                    .strip_suffix(&*with_u_labels(allowed))
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
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
