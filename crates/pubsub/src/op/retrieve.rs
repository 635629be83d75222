//! Retrieving items (§6.5).

use std::sync::Arc;

use crate::{
    Attribution, Context, Error, Feature, Item, ItemId, ItemOrder, Node, NodeId, PageRequest,
    ResultPage, SubId, SubscriptionDetails, access,
};

use super::require_node;

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["retrieve-items", "rsm"];

/// Request for items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieve {
    /// Name of the node.
    pub node: NodeId,
    /// Requested items.
    pub selection: Selection,
    /// Order of the items (XEP-0413).
    pub order: ItemOrder,
    /// SubID of the actor's subscription (§6.5.9.1).
    pub subid: Option<SubId>,
}

/// Selection of the items of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The items with these names; missing items are left out (§6.5.9.12).
    Ids(Vec<ItemId>),
    /// A page of all items (§6.5.4, XEP-0059).
    Page(PageRequest<ItemId>),
    /// The newest items, at most this number (§6.5.7).
    Recent(u32),
}

/// Items of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieved {
    /// Part of the selection that fits into the reply.
    pub part: ResultPage<Arc<Item>>,
    /// Source of the `publisher` attribute of the items. Entities that may configure the node may be shown the real
    /// publisher instead.
    pub attribution: Attribution,
}

/// Checks that the actor may retrieve the items.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`], [`Error::ClosedNode`], [`Error::SubIdRequired`],
/// [`Error::InvalidSubId`]; [`Error::Unsupported`] at a node that keeps no items (§6.5.9.4).
pub fn retrieve(node: Option<&Node>, request: &Retrieve, cx: &Context<'_>) -> Result<(), Error> {
    let node = require_node(node)?;
    access::may_retrieve(node, cx)?;
    if node.specials_len() > 0 {
        check_subid(node, request, cx)?;
    }
    list(Some(node), cx)?;
    match &request.selection {
        Selection::Ids(ids) if ids.len() > cx.limits().max_batch => {
            Err(Error::batch_too_long(cx.limits()))
        }
        Selection::Ids(_) | Selection::Page(_) | Selection::Recent(_) => Ok(()),
    }
}

/// Checks that the actor may list the names of the items (§5.5).
///
/// # Errors
/// As [`retrieve`], except those for SubIDs.
pub fn list(node: Option<&Node>, cx: &Context<'_>) -> Result<(), Error> {
    let node = require_node(node)?;
    access::may_retrieve(node, cx)?;
    match node.config.persist_items {
        true => Ok(()),
        false => Err(Error::Unsupported(Feature::PersistentItems)),
    }
}

/// Checks the SubID of a request. A SubID is required if the actor has several subscriptions, and has to belong to one
/// of them (§6.5.9.1, §6.5.9.2).
fn check_subid(node: &Node, request: &Retrieve, cx: &Context<'_>) -> Result<(), Error> {
    let bare = cx.actor.bare();
    let own = node.subscriptions_of(&bare).filter_map(|jid| node.configured_subscription(jid));
    let own: Vec<&SubscriptionDetails> =
        own.flat_map(|configured| configured.details.iter()).collect();
    let subids: Vec<_> = own.iter().filter_map(|details| details.subid.as_ref()).collect();
    match &request.subid {
        None if subids.len() > 1 => Err(Error::SubIdRequired),
        Some(subid) if !subids.is_empty() && !subids.contains(&subid) => Err(Error::InvalidSubId),
        _ => Ok(()),
    }
}
