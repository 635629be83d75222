//! Administrators, and the policies of nodes by the patterns of their names. The configuration can be reloaded while
//! the service runs.

use std::sync::{Arc, PoisonError};

use jid::{BareJid, Jid, is_within_domain};
use wildmatch::WildMatch;

use crate::store::StoreError;
use gjallar_pubsub::{
    Actor, Creators, Limits, NodeId, PageBound, PageRequest, Policy, administers,
};

use super::{Load, Service};

/// Maximum number of nodes in one read of the store.
const PAGE: usize = 1000;

/// Policies of the configuration, and the administrators.
#[derive(Clone, Debug, Default)]
pub struct PolicyTable {
    administrators: Vec<BareJid>,
    by_name: Vec<(WildMatch, Policy)>,
    rest: Policy,
    service: Option<Jid>,
    relay_limit: Option<RelayLimit>,
}

/// Size limits of stanzas that the server relays to users of other servers.
#[derive(Clone, Debug)]
pub struct RelayLimit {
    /// Domain of the server; stanzas to its users and to its subdomains are not relayed. `None` if the domain is
    /// unknown.
    pub server: Option<String>,
    /// Maximum bytes of a relayed stanza.
    pub max_stanza_bytes: usize,
    /// Maximum bytes of the items or nodes in a relayed reply.
    pub max_reply_bytes: usize,
}

impl RelayLimit {
    /// Returns `true` if the server relays stanzas to users of a domain.
    #[must_use]
    pub fn applies_to(&self, domain: &str) -> bool {
        !self.server.as_ref().is_some_and(|server| is_within_domain(domain, server))
    }
}

impl PolicyTable {
    /// Creates a table. `administrators` are entities or domains. `by_name` has pairs of a pattern of node names and a
    /// policy; in a pattern `*` matches any characters and `?` one character. The first pattern that matches applies.
    /// `rest` is the policy of all other nodes. The limits in `rest` are also the limits of the service as a whole.
    #[must_use]
    pub fn new(administrators: Vec<BareJid>, by_name: Vec<(String, Policy)>, rest: Policy) -> Self {
        let by_name = by_name.into_iter().map(|(name, policy)| (WildMatch::new(&name), policy));
        Self { administrators, by_name: by_name.collect(), rest, service: None, relay_limit: None }
    }

    /// Sets the JID of the service.
    #[must_use]
    pub fn at(self, service: Jid) -> Self {
        Self { service: Some(service), ..self }
    }

    /// Sets the size limits of stanzas to users of other servers.
    #[must_use]
    pub fn with_relay_limit(self, limit: RelayLimit) -> Self {
        Self { relay_limit: Some(limit), ..self }
    }

    /// Returns the size limits of stanzas to users of a domain, if the server relays these stanzas to another server.
    #[must_use]
    pub fn relay_limit(&self, domain: &str) -> Option<&RelayLimit> {
        self.relay_limit.as_ref().filter(|limit| limit.applies_to(domain))
    }

    /// Returns the maximum bytes of items or nodes in a reply to an entity.
    #[must_use]
    pub fn max_reply_bytes(&self, requester: &Jid) -> usize {
        let relayed = self.relay_limit(requester.domain().as_str());
        let max_bytes = self.limits().max_reply_bytes;
        relayed.map_or(max_bytes, |limit| max_bytes.min(limit.max_reply_bytes))
    }

    /// Returns the actor for a JID.
    #[must_use]
    pub fn actor(&self, jid: &Jid) -> Actor {
        let is_administrator = administers(&self.administrators, &jid.to_bare());
        Actor { jid: jid.clone(), is_administrator }
    }

    /// Returns `true` if at least one policy lets an actor create nodes.
    #[must_use]
    pub fn may_create(&self, actor: &Actor) -> bool {
        let by_name = self.by_name.iter().map(|(_, policy)| policy);
        by_name.chain([&self.rest]).any(|policy| policy.may_create(actor))
    }

    /// Returns the policy of nodes with this name.
    #[must_use]
    pub fn for_node(&self, node: &NodeId) -> &Policy {
        self.match_name(node.as_str())
    }

    /// Returns the policy for requests without a node name, which is the policy of the empty name.
    #[must_use]
    pub fn default_policy(&self) -> &Policy {
        self.match_name("")
    }

    /// Returns the rule for the creation of nodes whose names match no pattern.
    #[must_use]
    pub fn creators(&self) -> &Creators {
        &self.rest.creators
    }

    /// Returns the limits of the service.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.rest.limits
    }

    /// Returns the index in `by_name` of the policy of a node, if the policy limits the number of its nodes.
    pub(super) fn with_quota(&self, node: &NodeId) -> Option<usize> {
        let mut patterns = self.by_name.iter().enumerate();
        let (number, (_, policy)) =
            patterns.find(|(_, (pattern, _))| pattern.matches(node.as_str()))?;
        policy.max_nodes.map(|_| number)
    }

    fn have_quotas(&self) -> bool {
        self.by_name.iter().any(|(_, policy)| policy.max_nodes.is_some())
    }

    /// Returns the JID of the service, if it is known.
    pub(super) fn service(&self) -> Option<&Jid> {
        self.service.as_ref()
    }

    pub(super) fn administrators(&self) -> &[BareJid] {
        &self.administrators
    }

    fn match_name(&self, name: &str) -> &Policy {
        let found = self.by_name.iter().find(|(pattern, _)| pattern.matches(name));
        found.map_or(&self.rest, |(_, policy)| policy)
    }
}

impl Service {
    /// Returns the current policies.
    #[must_use]
    pub fn policies(&self) -> Arc<PolicyTable> {
        Arc::clone(&self.policies.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the policies. Earlier decisions and the configurations of existing nodes do not change. If a new policy
    /// limits the number of its nodes, all nodes are counted first, and the previous policies apply until then.
    ///
    /// # Errors
    /// An error of the store; the previous policies stay.
    pub async fn set_policies(&self, policies: PolicyTable) -> Result<(), StoreError> {
        let policies = Arc::new(policies);
        self.state.node_counts.begin_rebuild(Arc::clone(&policies));
        if policies.have_quotas()
            && let Err(error) = self.count_existing_nodes().await
        {
            self.state.node_counts.abort_rebuild();
            return Err(error);
        }
        self.state.node_counts.finish_rebuild();
        let limits = policies.limits();
        self.log_window().set_limits(Load::max(limits));
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies;
        Ok(())
    }

    async fn count_existing_nodes(&self) -> Result<(), StoreError> {
        let mut nodes = PageRequest::first(PAGE);
        loop {
            let found = self.state.quarantine_damaged(self.store.nodes(&nodes).await?);
            let Some((last, _)) = found.last() else { return Ok(()) };
            nodes.edge = PageBound::After(*last);
            self.state.node_counts.add_existing(found.into_iter().map(|(_, summary)| summary.node));
        }
    }
}
