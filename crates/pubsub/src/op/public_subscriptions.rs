//! Public subscriptions (XEP-0465): entities that may discover a node may retrieve the subscribers that chose to be
//! public.
//!
//! SPEC: the public subscribers of a node are retrieved from a virtual node that nobody can subscribe to. The virtual
//! node lists the bare JIDs of the subscribers. The node with an entity's own public subscriptions belongs to the
//! account of the entity (XEP-0376), not to this service.

use std::collections::BTreeSet;

use jid::BareJid;

use crate::{Context, Error, Node, NodeId, access};

use super::require_node;

/// Prefix of the name of a virtual node. The rest of the name is the name of the node whose public subscribers the
/// virtual node lists.
const SUBSCRIBERS: &str = "urn:xmpp:pps:subscribers:0/";
/// Name of the node with an entity's public subscriptions.
const SUBSCRIPTIONS: &str = "urn:xmpp:pps:subscriptions:0";

/// Returns `true` if nodes of this name are reserved for the service (XEP-0465 §5).
#[must_use]
pub fn is_managed(node: &NodeId) -> bool {
    node.as_str() == SUBSCRIPTIONS || node.as_str().starts_with(SUBSCRIBERS)
}

/// Returns the name of the node whose public subscribers a virtual node lists. Returns `None` if the given node is not
/// virtual.
#[must_use]
pub fn subscribed_node(node: &NodeId) -> Option<NodeId> {
    NodeId::parse(node.as_str().strip_prefix(SUBSCRIBERS)?).ok()
}

/// Returns the bare JIDs of the public subscribers of a node.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn subscribers(node: Option<&Node>, cx: &Context<'_>) -> Result<Vec<BareJid>, Error> {
    let node = require_node(node)?;
    access::may_discover(node, cx)?;
    let public = node.configured_subscriptions().filter(|(_, configured)| {
        !configured.is_pending && configured.details.iter().any(|details| details.options.is_public)
    });
    let entities: BTreeSet<_> = public.map(|(jid, _)| jid.to_bare()).collect();
    Ok(entities.into_iter().collect())
}
