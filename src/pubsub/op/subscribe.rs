//! Subscribing (§6.1).

use jid::Jid;

use crate::pubsub::{
    Admission, Change, Changes, Context, Decision, Feature, Item, Node, NodeId, Notification,
    Refusal, SendLastPublishedItem, SubscriptionState, access, notices::notices,
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

/// The JID is subscribed, or waits for an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// To which node.
    pub node: NodeId,
    /// Who.
    pub jid: Jid,
    /// How.
    pub state: SubscriptionState,
}

/// Decides a subscribe request, given the newest item.
///
/// Who is subscribed already is told so again (§6.1.2), without the last item. Where an owner has to approve it, the
/// owners are asked (§8.6).
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::InvalidJid`], [`Refusal::Forbidden`],
/// [`Refusal::ClosedNode`], [`Refusal::PendingSubscription`], [`Refusal::Unsupported`], [`Refusal::TooManySubscriptions`],
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
    let admission = access::may_subscribe(node, cx.actor)?;
    let mut changes = Changes::none(node);
    let state = match admission {
        Admission::Granted => SubscriptionState::Subscribed,
        Admission::OnApproval => SubscriptionState::Pending,
    };
    let mut reply = Subscribed { node: node.id.clone(), jid: request.jid.clone(), state };
    match node.state_of(&request.jid) {
        SubscriptionState::Subscribed => {
            reply.state = SubscriptionState::Subscribed;
            return Ok(Decision::quiet(reply, changes));
        }
        SubscriptionState::Pending => return Err(Refusal::PendingSubscription),
        SubscriptionState::None => {}
    }
    if !node.config.subscribe {
        return Err(Refusal::Unsupported(Feature::Subscribe));
    }
    if node.subscribers_len() + node.pending_len() >= cx.limits.max_subscriptions {
        return Err(Refusal::TooManySubscriptions);
    }
    let has_enough = cx.own_subscriptions >= cx.limits.max_subscriptions_per_jid;
    if has_enough && !cx.actor.is_administrator {
        return Err(Refusal::TooManyOwnSubscriptions);
    }
    changes.push(match admission {
        Admission::Granted => Change::Subscribed(request.jid.clone()),
        Admission::OnApproval => Change::Requested(request.jid.clone()),
    });
    let mut notifications = notices(node, &node.config, &mut changes, cx);
    if admission == Admission::Granted {
        notifications.extend(last_item(node, last, &request.jid));
    }
    Ok(Decision { reply, changes, notifications })
}

/// The last item for a JID that is subscribed now (§6.1.7).
pub(super) fn last_item(node: &Node, last: Option<&Item>, jid: &Jid) -> Option<Notification> {
    let last =
        last.filter(|_| node.config.send_last_published_item == SendLastPublishedItem::OnSub)?;
    Notification::of_last_item(node, last, jid.clone())
}
