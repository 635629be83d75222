//! Who is an administrator and who may create nodes: what the configuration says of a JID.

use jid::{BareJid, Jid};

use crate::pubsub::Actor;

/// The service's configuration about entities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actors {
    /// The service's administrators.
    pub administrators: Vec<BareJid>,
    /// Who may create nodes; administrators always may.
    pub creators: Creators,
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

impl Actors {
    /// The entity behind a JID.
    #[must_use]
    pub fn actor(&self, jid: &Jid) -> Actor {
        let bare = jid.to_bare();
        Actor {
            is_administrator: self.administrators.contains(&bare),
            may_create: self.creators.contain(bare.domain().as_str()),
            jid: jid.clone(),
        }
    }
}

impl Creators {
    fn contain(&self, domain: &str) -> bool {
        match self {
            Self::Administrators => false,
            Self::Anyone => true,
            Self::Domains(domains) => domains.iter().any(|allowed| {
                domain
                    .strip_suffix(allowed.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_its_users_and_those_below_it() {
        let creators = Creators::Domains(vec!["example.org".into()]);
        let actors = Actors { administrators: Vec::new(), creators };
        for (jid, may_create) in [
            ("a@example.org/r", true),
            ("a@sub.example.org", true),
            ("example.org", true),
            ("a@evilexample.org", false),
            ("a@example.org.evil", false),
            ("a@org", false),
        ] {
            assert_eq!(actors.actor(&Jid::new(jid).unwrap()).may_create, may_create, "{jid}");
        }
    }
}
