//! Approval of subscriptions (§8.6, §8.7).

use jid::Jid;

use std::borrow::Cow;

use crate::{
    Actor, Change, Changes, Context, Decision, Error, Event, IdGenerator, Item, Node, NodeId,
    Operation, Prefetch, Prefetched, Recipients, SubscriptionState, access,
    notify::state_changes::{push_entries, state_change_entries},
};

use super::{require_node, subscribe};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["get-pending"];

/// Maximum number of pending requests that one command sends to an owner. After answering these requests, the owner may
/// request more.
pub const MAX_PENDING_SHOWN: usize = 100;

/// Answer of an owner to a subscription request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorize {
    /// Name of the node.
    pub node: NodeId,
    /// JID of the pending subscription.
    pub jid: Jid,
    /// `true` if the owner approves the subscription.
    pub allow: bool,
}

impl Operation for Authorize {
    type Output = bool;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::LastItem
    }

    fn check_access(&self, node: &Node, cx: &Context<'_>) -> Result<(), Error> {
        access::may_configure(node, cx.actor)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<bool>, Error> {
        authorize(node, self, prefetched.items.last(), cx)
    }
}

/// Request for the pending subscription requests of a node (§8.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetPending {
    /// Node.
    pub node: NodeId,
}

impl Operation for GetPending {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        _prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        pending(node, cx)
    }
}

/// Decides the answer of an owner to a subscription request. An approved subscriber is sent the newest item of the node
/// (`last`). The reply is `true` if the subscription was pending. Otherwise nothing changes, for example because
/// another owner has answered.
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

/// Returns the pending JIDs of a node, for an entity that may approve them.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn requests(node: Option<&Node>, cx: &Context<'_>) -> Result<Vec<Jid>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    Ok(node.pending().cloned().collect())
}

/// Returns the decision that sends the pending requests of a node to an owner (§8.7.4), at most [`MAX_PENDING_SHOWN`].
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn pending(node: Option<&Node>, cx: &Context<'_>) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let requester = Recipients::one(cx.actor.jid.clone());
    let requests = node.pending().take(MAX_PENDING_SHOWN);
    let notices =
        requests.map(|jid| (Event::ApprovalRequested(jid.clone()), requester.clone())).collect();
    let mut changes = Changes::none(node);
    let notifications = push_entries(node, notices, &mut changes, cx);
    Ok(Decision { reply: (), changes, notifications })
}
