//! Deleting a node (§8.4).

use crate::pubsub::{
    Audience, Change, Changes, Context, Decision, Event, Node, NodeId, Notification, Recipients,
    Refusal, access,
};

use super::existing;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["delete-nodes"];

/// Asks that a node be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Which.
    pub node: NodeId,
    /// Where its subscribers should turn to (§8.4.2).
    pub redirect: Option<String>,
}

/// Decides a delete request. The audience of the event are those who were subscribed, or waited for that. Who comes later hears of the
/// redirection too ([`Refusal::Gone`]).
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`].
pub fn delete(
    node: Option<&Node>,
    request: &Delete,
    cx: &Context<'_>,
) -> Result<Decision<()>, Refusal> {
    let node = existing(node)?;
    access::may_configure(node, cx.actor)?;
    let mut changes = Changes::none(node);
    changes.push(Change::Deleted { redirect: request.redirect.clone() });
    let event = Event::Deleted { redirect: request.redirect.clone() };
    let mut notifications = Vec::new();
    if node.config.notify_delete {
        let pending = Recipients::sorted(node.pending().cloned().collect());
        let to_pending = Audience::Entities(pending);
        let notice = Notification::notice(node, &mut changes, event.clone(), to_pending, cx.now);
        let at = (notice.place, changes.version());
        notifications.push(notice);
        let told = Notification::to_subscribers(node, &node.config, at, event, cx.now);
        notifications.extend(told);
    }
    Ok(Decision { reply: (), changes, notifications })
}
