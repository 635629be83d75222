//! Subscribing (§6.1).

use jid::Jid;

use crate::pubsub::{
    Change, Changes, Context, Decision, Feature, Item, Node, NodeId, Notification, Refusal,
    SendLastPublishedItem, access,
};

use super::existing;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["subscribe"];

/// Asks for the events of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Which node.
    pub node: NodeId,
    /// Where the events go: the actor's bare JID or one of its full JIDs.
    pub jid: Jid,
}

/// The JID is subscribed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// To which node.
    pub node: NodeId,
    /// Who.
    pub jid: Jid,
}

/// Decides a subscribe request, given the newest item.
///
/// Who is subscribed already is told so again (§6.1.2), without the last item.
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::InvalidJid`], [`Refusal::Forbidden`],
/// [`Refusal::ClosedNode`], [`Refusal::Unsupported`], [`Refusal::TooManySubscriptions`],
/// [`Refusal::TooManyOwnSubscriptions`].
pub fn subscribe(
    node: Option<&Node>,
    request: &Subscribe,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<Subscribed>, Refusal> {
    let node = existing(node)?;
    if !access::is_self(cx.actor, &request.jid.to_bare()) {
        return Err(Refusal::InvalidJid);
    }
    access::may_subscribe(node, cx.actor)?;
    let mut changes = Changes::none(node);
    let reply = Subscribed { node: node.id.clone(), jid: request.jid.clone() };
    if node.is_subscribed(&request.jid) {
        return Ok(Decision::quiet(reply, changes));
    }
    if !node.config.subscribe {
        return Err(Refusal::Unsupported(Feature::Subscribe));
    }
    if node.subscribers_len() >= cx.limits.max_subscriptions {
        return Err(Refusal::TooManySubscriptions);
    }
    let has_enough = cx.own_subscriptions >= cx.limits.max_subscriptions_per_jid;
    if has_enough && !cx.actor.is_administrator {
        return Err(Refusal::TooManyOwnSubscriptions);
    }
    changes.push(Change::Subscribed(request.jid.clone()));
    let notification = last
        .filter(|_| node.config.send_last_published_item == SendLastPublishedItem::OnSub)
        .and_then(|last| Notification::of_last_item(node, last, request.jid.clone()));
    Ok(Decision { reply, changes, notification })
}
