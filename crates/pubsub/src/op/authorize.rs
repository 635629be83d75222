//! Approving subscriptions (§8.6, §8.7).

use jid::Jid;

use crate::{
    Change, Changes, Context, Decision, Error, Event, Item, Node, NodeId, Recipients,
    SubscriptionState, access,
    notify::state_changes::{push_entry, state_change_entries},
};

use super::{require_node, subscribe};

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["get-pending"];

/// Requests that are told to an owner at once; who answers these may ask for more.
pub const MAX_PENDING_SHOWN: usize = 100;

/// An owner's answer to a request for a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorize {
    /// At which node.
    pub node: NodeId,
    /// Whose request.
    pub jid: Jid,
    /// Whether it is approved.
    pub allow: bool,
}

/// Decides what an owner's answer does, given the newest item. Replies whether the subscription was pending; if another
/// owner was faster, it is not, and nothing changes.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn authorize(
    node: Option<&Node>,
    request: &Authorize,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<bool>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let mut changes = Changes::none(node);
    let is_pending = |jid: &Jid| node.state_of(jid) == SubscriptionState::Pending;
    let Some(jid) = node.known_subscriptions(&request.jid).into_iter().find(is_pending) else {
        return Ok(Decision::without_entries(false, changes));
    };
    changes.push(match request.allow {
        true => Change::Subscribed(jid),
        false => Change::Unsubscribed(jid),
    });
    let mut notifications = state_change_entries(node, &node.config, &mut changes, cx);
    notifications.extend(subscribe::last_items(node, &node.config, last, &changes, cx.ids));
    Ok(Decision { reply: true, changes, notifications })
}

/// Shows who waits to those who may approve it.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn requests(node: Option<&Node>, cx: &Context<'_>) -> Result<Vec<Jid>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    Ok(node.pending().cloned().collect())
}

/// Tells an owner of the requests that wait at a node (§8.7.4), of more than [`MAX_PENDING_SHOWN`] the first.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn pending(node: Option<&Node>, cx: &Context<'_>) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let asker = Recipients::one(cx.actor.jid.clone());
    let requests = node.pending().take(MAX_PENDING_SHOWN);
    let told = requests.map(|jid| (Event::ApprovalRequested(jid.clone()), asker.clone())).collect();
    let mut changes = Changes::none(node);
    let notifications = push_entry(node, told, &mut changes, cx);
    Ok(Decision { reply: (), changes, notifications })
}
