//! Who asks, and what a rule may know besides the node and the request.

use jid::{BareJid, Jid, is_same_domain};

use crate::{Limits, Policy, Roster};

/// The entity that makes a request, with what the service's configuration says of it.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Where the request came from; full for a client, bare for a bot that is a component.
    pub jid: Jid,
    /// Whether it administers the service: it has an owner's rights at every node (§12.13).
    pub is_administrator: bool,
}

impl Actor {
    /// The JID that affiliations are kept under.
    #[must_use]
    pub fn bare(&self) -> BareJid {
        self.jid.to_bare()
    }
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// So many milliseconds later.
    #[must_use]
    pub fn later_by(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// Where names come from that nobody had before.
pub trait IdGenerator: Send + Sync {
    /// A number that no other call returned, here or elsewhere.
    fn next_u64(&self) -> u64;

    /// A name for an instant node (§8.1.2) or an item published without one (§7.1.2).
    fn next_id(&self) -> String {
        format!("{:016x}", self.next_u64())
    }
}

/// All that a rule may know besides the node and the request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Who asks.
    pub actor: &'a Actor,
    /// The administrators of the service: entities, and domains, whose users all are.
    pub administrators: &'a [BareJid],
    /// What the service's configuration says of the node.
    pub policy: &'a Policy,
    /// When the request is decided.
    pub now: Timestamp,
    /// Source of node names, item names and epochs.
    pub ids: &'a dyn IdGenerator,
    /// How many nodes the service has.
    pub node_count: u64,
    /// Number of nodes that the actor's account created; set for operations that may create a node.
    pub actor_node_count: u64,
    /// How many have names for which the same policy holds, if it has a quota.
    pub policy_node_count: u64,
    /// Number of subscriptions of the actor's account; set for operations that may add a subscription.
    pub actor_subscription_count: usize,
    /// Returns `true` if the service may read the roster of an owner of the node, or of the actor if there is no such node (XEP-0356).
    pub reads_rosters: bool,
    /// Those of the owners of the node, if that is so and they matter there.
    pub owner_roster: Option<&'a Roster>,
}

/// Returns `true` if an entity is an administrator, by its address or its domain, in any spelling of the domain.
#[must_use]
pub fn administers(administrators: &[BareJid], entity: &BareJid) -> bool {
    let is_of = |domain: &str| is_same_domain(domain, entity.domain().as_str());
    let is_it = |one: &BareJid| {
        one.is_same(entity) || (one.node().is_none() && is_of(one.domain().as_str()))
    };
    administrators.iter().any(is_it)
}

impl Context<'_> {
    /// How much of each thing the node and the service take.
    pub(super) fn limits(&self) -> &Limits {
        &self.policy.limits
    }
}
