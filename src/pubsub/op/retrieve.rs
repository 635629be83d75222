//! Retrieving items (§6.5).

use crate::pubsub::{Context, Feature, ItemId, Node, NodeId, Page, Refusal, access};

use super::existing;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["retrieve-items", "rsm"];

/// Asks for items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieve {
    /// Of which node.
    pub node: NodeId,
    /// Which.
    pub selection: Selection,
}

/// Which items of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those with these names; what is not there is left out (§6.5.9.12).
    Ids(Vec<ItemId>),
    /// A part of all of them, oldest first (§6.5.4, XEP-0059).
    Page(Page<ItemId>),
    /// The newest, at most this many, oldest of them first (§6.5.7).
    Recent(u32),
}

/// Decides whether the items are shown.
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`], [`Refusal::ClosedNode`];
/// [`Refusal::Unsupported`] at a node that keeps no items (§6.5.9.4).
pub fn retrieve(node: Option<&Node>, request: &Retrieve, cx: &Context<'_>) -> Result<(), Refusal> {
    let node = existing(node)?;
    access::may_retrieve(node, cx.actor)?;
    if !node.config.persist_items {
        return Err(Refusal::Unsupported(Feature::PersistentItems));
    }
    match &request.selection {
        Selection::Ids(ids) if ids.len() > cx.limits.max_batch => Err(Refusal::MaxItemsExceeded),
        Selection::Ids(_) | Selection::Page(_) | Selection::Recent(_) => Ok(()),
    }
}
