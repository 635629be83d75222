//! Ending a subscription (§6.2).

use jid::Jid;

use crate::pubsub::{Change, Changes, Context, Decision, Node, NodeId, Refusal, access};

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

/// Decides an unsubscribe request.
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
    if !node.is_subscribed(&request.jid) {
        return Err(Refusal::NotSubscribed);
    }
    let mut changes = Changes::none(node);
    changes.push(Change::Unsubscribed(request.jid.clone()));
    Ok(Decision::quiet(request.clone(), changes))
}
