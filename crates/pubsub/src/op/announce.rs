//! Announcements: texts of an owner to the subscribers of a node, which the node does not store as items.

use std::borrow::Cow;
use std::collections::HashSet;

use jid::Jid;

use crate::{
    Actor, Audience, Changes, ConfiguredSubscription, Context, Decision, Error, Event, IdGenerator,
    LogEntry, Node, NodeId, Operation, Prefetch, Prefetched, Recipients, access, event::MAX_LISTED,
    is_xml,
};

use super::require_node;

/// Request to send an announcement to the subscribers of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Name of the node.
    pub node: NodeId,
    /// Text of the announcement; at most as many bytes as a payload may have.
    pub text: String,
}

impl Operation for Announce {
    type Output = usize;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Enrolled
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
    ) -> Result<Decision<usize>, Error> {
        announce(node, self, &prefetched.enrolled, cx)
    }
}

/// Decides an announcement. Recipients are the subscribers, even at a node that delivers no notifications. Exceptions
/// are subscribers that disable delivery in their options, and JIDs that an owner subscribed (`enrolled`). The reply is
/// the number of recipients.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`]; [`Error::BadRequest`] for an empty text, or one that is not allowed
/// in XML; [`Error::PayloadTooBig`].
pub fn announce(
    node: Option<&Node>,
    request: &Announce,
    enrolled: &HashSet<Jid>,
    cx: &Context<'_>,
) -> Result<Decision<usize>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    if request.text.trim().is_empty() || !is_xml(&request.text) {
        return Err(Error::BadRequest("a text is required"));
    }
    if request.text.len() > cx.limits().max_payload_bytes as usize {
        let max = cx.limits().max_payload_bytes;
        return Err(Error::PayloadTooBig { limit: "max_payload_bytes", max });
    }
    let mut changes = Changes::none(node);
    let wants = |jid: &&Jid| {
        let delivers = |configured: &ConfiguredSubscription| {
            configured.details.iter().any(|details| details.options.deliver)
        };
        !enrolled.contains(*jid) && node.configured_subscription(jid).is_none_or(delivers)
    };
    let recipients: Vec<_> = node.subscribers().filter(wants).cloned().collect();
    let event = Event::Announced(request.text.clone());
    let entry = LogEntry::for_entities(node, &mut changes, event, Audience::Subscribers, cx.now);
    let to_chunk = |chunk: &[Jid]| {
        let audience = Audience::Listed(Recipients::sorted(chunk.to_vec()));
        LogEntry { audience, ..entry.clone() }
    };
    let mut notifications: Vec<_> = recipients.chunks(MAX_LISTED).map(to_chunk).collect();
    if notifications.is_empty() {
        // The audit log records the announcement even without recipients.
        notifications.push(to_chunk(&[]));
    }
    Ok(Decision { reply: recipients.len(), changes, notifications })
}
