//! Removal of all items of a node (§8.5).

use std::borrow::Cow;

use crate::{
    Change, Changes, Context, Decision, Error, Event, Feature, IdGenerator, Node, NodeId,
    Operation, Prefetched, access, notify::fanout::Fanout,
};

use super::require_node;

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["purge-nodes"];

/// Request to remove all items of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Name of the node.
    pub node: NodeId,
}

impl Operation for Purge {
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
        purge(node, cx)
    }
}

/// Decides a purge request.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`]; [`Error::Unsupported`] at a node that keeps
/// no items (§8.5.3.3).
pub fn purge(node: Option<&Node>, cx: &Context<'_>) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    if !node.config.persist_items {
        return Err(Error::Unsupported(Feature::PersistentItems));
    }
    let mut changes = Changes::none(node);
    let place = changes.next_event_id(node.epoch);
    changes.push(Change::Purged);
    let notifications = match node.config.notify_retract {
        true => {
            let at = (place, changes.version());
            Fanout::new(node, &node.config, cx).notify(at, Event::Purged)?
        }
        false => Vec::new(),
    };
    Ok(Decision { reply: (), changes, notifications })
}
