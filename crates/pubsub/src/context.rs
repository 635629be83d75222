//! Actor and context of a request. A rule (a function that decides a request) gets the context, the node and the
//! request.

use jid::{BareJid, Jid, is_same_domain};

use crate::{Limits, Policy, Roster};

/// Entity that makes a request.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Sender of the request; a full JID for a client, a bare JID for a bot that is a component.
    pub jid: Jid,
    /// `true` if the actor administers the service, and so has the rights of an owner at every node (§12.13).
    pub is_administrator: bool,
}

impl Actor {
    /// Returns the bare JID, by which affiliations are stored.
    #[must_use]
    pub fn bare(&self) -> BareJid {
        self.jid.to_bare()
    }
}

/// Point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the time that is this number of milliseconds later.
    #[must_use]
    pub fn later_by(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// Source of unique identifiers.
pub trait IdGenerator: Send + Sync {
    /// Returns a number that no other call returned, in this or another process.
    fn next_u64(&self) -> u64;

    /// Returns a name for an instant node (§8.1.2), or for an item that was published without a name (§7.1.2).
    fn next_id(&self) -> String {
        format!("{:016x}", self.next_u64())
    }
}

/// Context of a request: all inputs of a rule (a function that decides a request) besides the node and the request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Entity that makes the request.
    pub actor: &'a Actor,
    /// Administrators of the service: entities and domains. A domain means that all users of the domain are
    /// administrators.
    pub administrators: &'a [BareJid],
    /// JID of the service, if it is known.
    pub service: Option<&'a Jid>,
    /// Policy for nodes with the name of this node.
    pub policy: &'a Policy,
    /// Time of the decision.
    pub now: Timestamp,
    /// Source of node names, item names and epochs.
    pub ids: &'a dyn IdGenerator,
    /// Number of nodes in the service.
    pub node_count: u64,
    /// Number of nodes that the actor's account created; set only for operations that may create a node.
    pub actor_node_count: u64,
    /// Number of existing nodes under the same policy; set only if the policy limits this number.
    pub policy_node_count: u64,
    /// Number of subscriptions of the actor's account; set only for operations that may add a subscription.
    pub actor_subscription_count: usize,
    /// `true` if the service may read the roster of an owner of the node (XEP-0356). If the node does not exist, the
    /// field refers to the roster of the actor, who would become its owner.
    pub reads_rosters: bool,
    /// Roster of the node's owner; `None` if it is unknown or not needed for the request.
    pub owner_roster: Option<&'a Roster>,
}

/// Returns `true` if an entity is an administrator by its address or by its domain. The domain may have any spelling.
#[must_use]
pub fn administers(administrators: &[BareJid], entity: &BareJid) -> bool {
    let is_of = |domain: &str| is_same_domain(domain, entity.domain().as_str());
    let is_administrator = |administrator: &BareJid| {
        administrator.is_same(entity)
            || (administrator.node().is_none() && is_of(administrator.domain().as_str()))
    };
    administrators.iter().any(is_administrator)
}

impl Context<'_> {
    /// Returns the limits for the node and the service.
    pub(super) fn limits(&self) -> &Limits {
        &self.policy.limits
    }
}
