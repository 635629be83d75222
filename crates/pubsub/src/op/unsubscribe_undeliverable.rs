//! Removal of subscriptions whose notifications bounce (§12.4).

use jid::Jid;

use crate::{
    Change, Changes, Context, Decision, Epoch, Error, Node, SubscriptionState,
    notify::state_changes::state_change_entries,
};

use super::require_node;

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

/// Decides to end the subscription of a JID that cannot be reached, if the node still has this epoch.
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
