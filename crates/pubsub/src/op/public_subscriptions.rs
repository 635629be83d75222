//! Public subscriptions (XEP-0465): who sees a node may know who wants to be known as its subscriber.
//!
//! SPEC: a node's public subscribers are read at a node that the service makes up, which nobody can subscribe to. They
//! are known by their bare JIDs. That of an entity's own public subscriptions is its account's (XEP-0376), not here.

use std::collections::BTreeSet;

use jid::BareJid;

use crate::{Context, Error, Node, NodeId, access};

use super::require_node;

/// What the name of the node with the public subscribers of another one begins with; the other one's name follows.
const SUBSCRIBERS: &str = "urn:xmpp:pps:subscribers:0/";
/// The node with an entity's public subscriptions.
const SUBSCRIPTIONS: &str = "urn:xmpp:pps:subscriptions:0";

/// Returns `true` if nobody but the service may do something at a node of this name (XEP-0465 §5).
#[must_use]
pub fn is_managed(node: &NodeId) -> bool {
    node.as_str() == SUBSCRIPTIONS || node.as_str().starts_with(SUBSCRIBERS)
}

/// The node whose public subscribers are at this one.
#[must_use]
pub fn subscribed_node(node: &NodeId) -> Option<NodeId> {
    NodeId::parse(node.as_str().strip_prefix(SUBSCRIBERS)?).ok()
}

/// Tells who subscribes to a node in public.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn subscribers(node: Option<&Node>, cx: &Context<'_>) -> Result<Vec<BareJid>, Error> {
    let node = require_node(node)?;
    access::may_discover(node, cx)?;
    let public = node.specials().filter(|(_, special)| {
        !special.is_pending && special.terms.iter().any(|terms| terms.options.is_public)
    });
    let entities: BTreeSet<_> = public.map(|(jid, _)| jid.to_bare()).collect();
    Ok(entities.into_iter().collect())
}
