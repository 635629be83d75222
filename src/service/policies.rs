//! What the configuration says of entities, and of nodes by the patterns of their names; it may change while the
//! service runs.

use std::sync::{Arc, PoisonError};

use jid::{BareJid, Jid};
use wildmatch::WildMatch;

use crate::pubsub::{Actor, Creators, Limits, NodeId, Policy};

use super::Service;

/// The service's configuration about entities and nodes.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    administrators: Vec<BareJid>,
    by_name: Vec<(WildMatch, Policy)>,
    rest: Policy,
}

impl Policies {
    /// With these administrators; with policies for nodes whose names are like these patterns, in which `*` stands for
    /// anything and `?` for one character: the first that fits counts; and with a policy for all other nodes, whose
    /// limits are those of the service.
    #[must_use]
    pub fn new(administrators: Vec<BareJid>, by_name: Vec<(String, Policy)>, rest: Policy) -> Self {
        let by_name = by_name.into_iter().map(|(name, policy)| (WildMatch::new(&name), policy));
        Self { administrators, by_name: by_name.collect(), rest }
    }

    /// The entity behind a JID.
    #[must_use]
    pub fn actor(&self, jid: &Jid) -> Actor {
        let is_administrator = self.administrators.contains(&jid.to_bare());
        Actor { jid: jid.clone(), is_administrator }
    }

    /// Whether there are nodes that an entity may create.
    #[must_use]
    pub fn may_create(&self, actor: &Actor) -> bool {
        let by_name = self.by_name.iter().map(|(_, policy)| policy);
        by_name.chain([&self.rest]).any(|policy| policy.may_create(actor))
    }

    /// What holds at a node of this name.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> &Policy {
        self.like(node.as_str())
    }

    /// What holds at nodes whose names say nothing.
    #[must_use]
    pub fn common(&self) -> &Policy {
        self.like("")
    }

    /// Who may create nodes whose names fit no pattern.
    #[must_use]
    pub fn creators(&self) -> &Creators {
        &self.rest.creators
    }

    /// The limits of the service.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.rest.limits
    }

    pub(super) fn administrators(&self) -> &[BareJid] {
        &self.administrators
    }

    fn like(&self, name: &str) -> &Policy {
        let found = self.by_name.iter().find(|(pattern, _)| pattern.matches(name));
        found.map_or(&self.rest, |(_, policy)| policy)
    }
}

impl Service {
    /// What the configuration says now.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this holds. What is decided already stays so, and nodes stay as they are configured.
    pub fn govern(&self, policies: Policies) {
        let limits = policies.limits();
        self.outbox().hold_to(limits.max_backlog_events, limits.max_backlog_bytes);
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policies);
    }
}
