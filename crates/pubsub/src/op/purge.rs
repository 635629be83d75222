//! Removal of all items of a node (§8.5).

use crate::{
    Change, Changes, Context, Decision, Error, Event, Feature, Node, NodeId, access,
    notify::fanout::Fanout,
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
