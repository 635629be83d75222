//! Retrieving items (§6.5).

use std::sync::Arc;

use crate::{
    Attribution, Context, Error, Feature, Item, ItemId, ItemOrder, Node, NodeId, PageRequest,
    ResultPage, SubId, SubscriptionDetails, access,
};

use super::require_node;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["retrieve-items", "rsm"];

/// Asks for items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieve {
    /// Of which node.
    pub node: NodeId,
    /// Which.
    pub selection: Selection,
    /// In which order (XEP-0413).
    pub order: ItemOrder,
    /// Which of the asker's subscriptions it has in mind (§6.5.9.1).
    pub subid: Option<SubId>,
}

/// Which items of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those with these names; what is not there is left out (§6.5.9.12).
    Ids(Vec<ItemId>),
    /// A part of all of them (§6.5.4, XEP-0059).
    Page(PageRequest<ItemId>),
    /// The newest, at most this many (§6.5.7).
    Recent(u32),
}

/// The items of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrieved {
    /// The part of the selection that fits into the answer.
    pub part: ResultPage<Arc<Item>>,
    /// The publisher that the items show to those who do not manage the node.
    pub attribution: Attribution,
}

/// Decides whether the items are shown.
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

/// Decides whether the names of the items are shown (§5.5).
///
/// # Errors
/// As [`retrieve`], but for what it says of SubIDs.
pub fn list(node: Option<&Node>, cx: &Context<'_>) -> Result<(), Error> {
    let node = require_node(node)?;
    access::may_retrieve(node, cx)?;
    match node.config.persist_items {
        true => Ok(()),
        false => Err(Error::Unsupported(Feature::PersistentItems)),
    }
}

/// Who has several subscriptions says which it has in mind, and who says one has that one (§6.5.9.1, §6.5.9.2).
fn check_subid(node: &Node, request: &Retrieve, cx: &Context<'_>) -> Result<(), Error> {
    let bare = cx.actor.bare();
    let own = node.subscriptions_of(&bare).filter_map(|jid| node.special(jid));
    let own: Vec<&SubscriptionDetails> = own.flat_map(|special| special.terms.iter()).collect();
    let subids: Vec<_> = own.iter().filter_map(|terms| terms.subid.as_ref()).collect();
    match &request.subid {
        None if subids.len() > 1 => Err(Error::SubIdRequired),
        Some(subid) if !subids.is_empty() && !subids.contains(&subid) => Err(Error::InvalidSubId),
        _ => Ok(()),
    }
}
