//! End of subscriptions by their subscribers (§6.2).

use jid::Jid;

use std::borrow::Cow;

use crate::{
    Change, Changes, Context, Decision, Error, IdGenerator, Node, NodeId, Operation, Prefetched,
    SubId, SubscriptionState, access, notify::state_changes::state_change_entries,
};

use super::{
    require_node,
    subscription_options::{find, options_change},
};

/// Request to end a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Name of the node.
    pub node: NodeId,
    /// Subscribed JID.
    pub jid: Jid,
    /// SubID, if the JID has several subscriptions.
    pub subid: Option<SubId>,
}

impl Operation for Unsubscribe {
    type Output = Self;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        _prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<Self>, Error> {
        unsubscribe(node, self, cx)
    }
}

/// Decides an unsubscribe request, which also withdraws a pending subscription (§8.6).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`], [`Error::NotSubscribed`], [`Error::SubIdRequired`],
/// [`Error::InvalidSubId`].
pub fn unsubscribe(
    node: Option<&Node>,
    request: &Unsubscribe,
    cx: &Context<'_>,
) -> Result<Decision<Unsubscribe>, Error> {
    let node = require_node(node)?;
    if !access::is_self(cx.actor, &request.jid.to_bare()) {
        return Err(Error::Forbidden);
    }
    let jid = node.known_subscription(&request.jid);
    if node.state_of(&jid) == SubscriptionState::None {
        return Err(Error::NotSubscribed);
    }
    let mut details = node.details_of(&jid).into_owned();
    let ended = details.remove(find(&details, request.subid.as_ref())?);
    let mut changes = Changes::none(node);
    changes.push(match details.is_empty() {
        true => Change::Unsubscribed(jid),
        false => options_change(node, jid, details)?,
    });
    let notifications = state_change_entries(node, &node.config, &mut changes, cx);
    let reply = Unsubscribe { subid: ended.subid, ..request.clone() };
    Ok(Decision { reply, changes, notifications })
}
