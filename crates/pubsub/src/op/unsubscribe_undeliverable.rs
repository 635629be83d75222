//! Removal of subscriptions whose notifications bounce (§12.4).

use std::borrow::Cow;

use jid::{BareJid, Jid};

use crate::{
    Actor, Change, Changes, Context, Decision, Epoch, Error, IdGenerator, Node, NodeId, Operation,
    Prefetch, Prefetched, SubscriptionState, notify::state_changes::state_change_entries,
};

use super::require_node;

/// End of the subscription of a full JID whose resource does not exist any more.
#[derive(Clone, Copy, Debug)]
pub struct UnsubscribeMissing<'a> {
    /// Node.
    pub node: &'a NodeId,
    /// Bare JID of the subscriber.
    pub entity: &'a BareJid,
    /// Full JID of the subscriber.
    pub jid: &'a Jid,
}

impl Operation for UnsubscribeMissing<'_> {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::EnrolledOf(self.entity)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        // The end of a subscription that an owner made would show the owner that the resource is absent.
        if prefetched.enrolled.contains(self.jid) {
            return Err(Error::NotSubscribed);
        }
        gone(node, self.jid, cx)
    }
}

/// End of the subscription of a JID whose notifications bounce.
#[derive(Clone, Copy, Debug)]
pub struct UnsubscribeBounced<'a> {
    /// Node.
    pub node: &'a NodeId,
    /// Epoch of the node that sent the notifications.
    pub epoch: Epoch,
    /// JID of the subscriber.
    pub jid: &'a Jid,
}

impl Operation for UnsubscribeBounced<'_> {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(self.node))
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        _prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        bounce(node, self.epoch, self.jid, cx)
    }
}

/// Decides to end the subscription of a full JID, active or pending, because the resource does not exist any more.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::NotSubscribed`].
pub fn gone(node: Option<&Node>, jid: &Jid, cx: &Context<'_>) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    if node.state_of(jid) == SubscriptionState::None {
        return Err(Error::NotSubscribed);
    }
    let mut changes = Changes::none(node);
    changes.push(Change::Unsubscribed(jid.clone()));
    let notifications = state_change_entries(node, &node.config, &mut changes, cx);
    Ok(Decision { reply: (), changes, notifications })
}

/// Decides to end the subscription of a JID that cannot be reached. Fails if the node has another epoch than `epoch`,
/// because it was deleted and created again since the notification was sent.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::NotSubscribed`].
pub fn bounce(
    node: Option<&Node>,
    epoch: Epoch,
    jid: &Jid,
    cx: &Context<'_>,
) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    if node.epoch != epoch || node.state_of(jid) != SubscriptionState::Subscribed {
        return Err(Error::NotSubscribed);
    }
    gone(Some(node), jid, cx)
}
