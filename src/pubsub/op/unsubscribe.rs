//! Ending a subscription (§6.2).

use jid::Jid;

use crate::pubsub::{
    Change, Changes, Context, Decision, Node, NodeId, Refusal, SubscriptionState, access,
    notices::notices,
};

use super::existing;

/// Asks for no more events.
///
/// A JID has at most one subscription at a node, so a SubID is not needed and ignored (§6.2.3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// From which node.
    pub node: NodeId,
    /// Which JID.
    pub jid: Jid,
}

/// Decides an unsubscribe request. Who waits for a subscription withdraws that so (§8.6).
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`], [`Refusal::NotSubscribed`].
pub fn unsubscribe(
    node: Option<&Node>,
    request: &Unsubscribe,
    cx: &Context<'_>,
) -> Result<Decision<Unsubscribe>, Refusal> {
    let node = existing(node)?;
    if !access::is_self(cx.actor, &request.jid.to_bare()) {
        return Err(Refusal::Forbidden);
    }
    if node.state_of(&request.jid) == SubscriptionState::None {
        return Err(Refusal::NotSubscribed);
    }
    let mut changes = Changes::none(node);
    changes.push(Change::Unsubscribed(request.jid.clone()));
    let notifications = notices(node, &node.config, &mut changes, cx);
    Ok(Decision { reply: request.clone(), changes, notifications })
}
