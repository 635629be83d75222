//! Subscriptions as the owner manages them (§8.8), and as an entity sees its own (§5.6).

use std::collections::BTreeSet;

use jid::Jid;

use crate::pubsub::{Change, Changes, Context, Decision, Node, NodeId, Refusal, access};

use super::existing;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["manage-subscriptions", "retrieve-subscriptions"];

/// Asks for one's own subscriptions, at one node or at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSubscriptions {
    /// At which node only.
    pub node: Option<NodeId>,
}

/// Asks that JIDs be subscribed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSubscriptions {
    /// At which node.
    pub node: NodeId,
    /// Who, and what they shall be; each JID once.
    pub entries: Vec<(Jid, Wanted)>,
}

/// What an owner wants a subscription to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Not there.
    None,
    /// There.
    Subscribed,
    /// In a state that this service does not have.
    Other,
}

/// What became of the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionsSet {
    /// At which node.
    pub node: NodeId,
    /// Those that could not be set, and whether they are subscribed all the same. The others hold
    /// (§8.8.2.4).
    pub failed: Vec<(Jid, bool)>,
    /// Whether some failed because the node has as many subscriptions as it takes.
    pub is_full: bool,
}

/// Shows who is subscribed to those who may manage it (§8.8.1).
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`].
pub fn subscriptions(node: Option<&Node>, cx: &Context<'_>) -> Result<Vec<Jid>, Refusal> {
    let node = existing(node)?;
    access::may_configure(node, cx.actor)?;
    Ok(node.subscribers().cloned().collect())
}

/// Decides a request to set subscriptions (§8.8.2).
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`]; [`Refusal::BadRequest`] if a JID stands twice.
pub fn set_subscriptions(
    node: Option<&Node>,
    request: &SetSubscriptions,
    cx: &Context<'_>,
) -> Result<Decision<SubscriptionsSet>, Refusal> {
    let node = existing(node)?;
    access::may_configure(node, cx.actor)?;
    let distinct: BTreeSet<_> = request.entries.iter().map(|(jid, _)| jid).collect();
    if distinct.len() < request.entries.len() {
        return Err(Refusal::BadRequest("two entries for one JID"));
    }
    let mut changes = Changes::none(node);
    let (mut failed, mut is_full) = (Vec::new(), false);
    let mut room = cx.limits.max_subscriptions.saturating_sub(node.subscribers_len());
    for (jid, wanted) in &request.entries {
        let subscribed = node.is_subscribed(jid);
        let admitted = node.config.subscribe
            && access::admits(&node.config, node.affiliation_of(&jid.to_bare())).is_ok();
        match (wanted, subscribed) {
            (Wanted::None, true) => changes.push(Change::Unsubscribed(jid.clone())),
            (Wanted::Subscribed, true) | (Wanted::None, false) => {}
            (Wanted::Subscribed, false) if admitted && room > 0 => {
                room -= 1;
                changes.push(Change::Enrolled(jid.clone()));
            }
            (Wanted::Subscribed | Wanted::Other, _) => {
                is_full |= *wanted == Wanted::Subscribed && admitted;
                failed.push((jid.clone(), subscribed));
            }
        }
    }
    Ok(Decision::quiet(SubscriptionsSet { node: node.id.clone(), failed, is_full }, changes))
}
