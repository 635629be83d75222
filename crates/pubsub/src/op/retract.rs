//! Retraction of items (§7.2).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jid::BareJid;

use crate::{
    Actor, Change, Changes, Context, Decision, Error, Event, Feature, IdGenerator, ItemId,
    LogEntry, Node, NodeId, Operation, Prefetch, Prefetched, access, notify::fanout::Fanout,
};

use super::require_node;

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["delete-items", "retract-items"];

/// Request to retract items, all or none (§12.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retract {
    /// Name of the node.
    pub node: NodeId,
    /// Names of the items; at least one.
    pub items: Vec<ItemId>,
    /// `true` to notify subscribers even if `pubsub#notify_retract` is false (§7.2.2.1).
    pub notify: bool,
}

impl Operation for Retract {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Publishers(self)
    }

    fn check_access(&self, node: &Node, cx: &Context<'_>) -> Result<(), Error> {
        check_access(node, cx)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        retract(node, self, &prefetched.publishers, cx)
    }
}

/// Bytes that an item takes in an event besides its name.
const RETRACTED_BYTES: usize = 20;

/// Decides a retract request. `publishers` has the named items that exist, each with its publisher.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::ItemNotFound`], [`Error::Forbidden`], [`Error::ForeignItem`],
/// [`Error::BatchTooBig`], [`Error::TooManyNotifications`];
/// [`Error::Unsupported`] at a node that keeps no items (§7.2.3.5).
pub fn retract(
    node: Option<&Node>,
    request: &Retract,
    publishers: &BTreeMap<ItemId, BareJid>,
    cx: &Context<'_>,
) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    check_access(node, cx)?;
    if !node.config.persist_items {
        return Err(Error::Unsupported(Feature::PersistentItems));
    }
    if request.items.is_empty() {
        return Err(Error::ItemRequired);
    }
    if request.items.len() > cx.limits().max_batch {
        return Err(Error::batch_too_long(cx.limits()));
    }
    if request.items.iter().collect::<BTreeSet<_>>().len() < request.items.len() {
        return Err(Error::BadRequest("two items have the same id"));
    }
    // Each event has one id, so no stanza depends on this sum.
    let names = request.items.iter().map(|id| RETRACTED_BYTES + id.as_str().len());
    if names.sum::<usize>() > cx.limits().max_reply_bytes {
        return Err(Error::BatchTooBig { max: cx.limits().max_reply_bytes });
    }
    let mut changes = Changes::none(node);
    for id in &request.items {
        let publisher = publishers.get(id).ok_or(Error::ItemNotFound)?;
        access::may_change_item(node, cx.actor, publisher)?;
        changes.push(Change::Retracted(id.clone()));
    }
    let is_notified = node.config.notify_retract || request.notify;
    let mut fanout = Fanout::new(node, &node.config, cx);
    let notifications = retractions(node, &request.items, is_notified, &mut changes, &mut fanout)?;
    Ok(Decision { reply: (), changes, notifications })
}

/// Checks that the actor may learn which items exist.
///
/// # Errors
/// [`Error::Forbidden`].
pub fn check_access(node: &Node, cx: &Context<'_>) -> Result<(), Error> {
    let is_refused =
        access::may_publish(node, cx.actor).is_err() && access::may_retrieve(node, cx).is_err();
    if is_refused { Err(Error::Forbidden) } else { Ok(()) }
}

/// Returns log entries with an event for each retracted item, or no entries if `is_notified` is `false`. Each item uses
/// up one sequence number of the node, even without an event.
pub(super) fn retractions(
    node: &Node,
    items: &[ItemId],
    is_notified: bool,
    changes: &mut Changes,
    fanout: &mut Fanout<'_>,
) -> Result<Vec<LogEntry>, Error> {
    let mut notifications = Vec::new();
    for id in items {
        let at = (changes.next_event_id(node.epoch), changes.version());
        if is_notified {
            notifications.extend(fanout.notify(at, Event::Retracted(vec![id.clone()]))?);
        }
    }
    Ok(notifications)
}
