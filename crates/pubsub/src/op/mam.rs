//! Queries for the archive of a node (XEP-0313, XEP-0442).
//!
//! SPEC-DEVIATION: the archive of a node has the items that the node has now, the same as retrieval. With XEP-0313
//! §3.2, items that were retracted, evicted or replaced would keep their entries. A query may still begin or end at the
//! id of such an item.
//!
//! SPEC-DEVIATION: XEP-0313 §3 requires unpredictable ids. Here only the epoch in an id is unpredictable; the rest is
//! sequential. That is safe, because knowing an id gives no access.

use jid::Jid;

use crate::{
    ArchiveId, Attribution, Context, Error, Feature, ItemFilter, ItemOrder, ItemPosition,
    ItemQuery, ItemRef, Node, NodeId, OrderField, PageBound, PageRequest, Timestamp, access,
};

use super::require_node;

/// Maximum number of items in one reply, which has a message for each item.
pub const MAX_RESULTS: usize = 100;

/// Query for a part of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryArchive {
    /// Name of the node.
    pub node: NodeId,
    /// Page of the matching items.
    pub page: PageRequest<ArchiveId>,
    /// Order of the items.
    pub order: ItemOrder,
    /// Only items after this item.
    pub after: Option<ArchiveId>,
    /// Only items before this item.
    pub before: Option<ArchiveId>,
    /// Only these items.
    pub only: Option<Vec<ArchiveId>>,
    /// Only items published at this time or later.
    pub since: Option<Timestamp>,
    /// Only items published at this time or earlier.
    pub until: Option<Timestamp>,
    /// Only items published by this JID.
    pub with: Option<Jid>,
}

impl QueryArchive {
    /// Returns a query for a page of all items in the archive.
    #[must_use]
    pub fn all(node: NodeId, page: PageRequest<ArchiveId>) -> Self {
        Self {
            node,
            page,
            order: ItemOrder::default(),
            after: None,
            before: None,
            only: None,
            since: None,
            until: None,
            with: None,
        }
    }
}

/// Checks that the actor may query the archive, and returns the query for the items.
///
/// SPEC: publishers are known by their bare JIDs, so no item matches a full JID.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`]; [`Error::Unsupported`] at a node that keeps no items;
/// [`Error::PublisherHidden`] if the query names a publisher at a node that does not show publishers (XEP-0313 §4.1.1);
/// [`Error::ItemNotFound`] for an id that the node has not assigned; [`Error::NotImplemented`] for a page that begins
/// at an index other than 0.
pub fn query(
    node: Option<&Node>,
    request: &QueryArchive,
    cx: &Context<'_>,
) -> Result<ItemQuery, Error> {
    let node = require_node(node)?;
    // XEP-0313 §8.1.
    access::may_retrieve(node, cx).map_err(|_| Error::Forbidden)?;
    if !node.config.persist_items {
        return Err(Error::Unsupported(Feature::PersistentItems));
    }
    if request.with.is_some() && Attribution::of(node, &node.config) != Attribution::Publisher {
        return Err(Error::PublisherHidden);
    }
    if matches!(request.page.edge, PageBound::At(index) if index > 0) {
        return Err(Error::NotImplemented("paging through an archive by index".into()));
    }
    let position =
        |id: ArchiveId| match id.epoch == node.epoch && id.position.sequence <= node.sequence {
            true => Ok(id.position),
            false => Err(Error::ItemNotFound),
        };
    let named = |id: Option<ArchiveId>| id.map(position).transpose();
    let all = |ids: &[ArchiveId]| {
        ids.iter().copied().map(position).collect::<Result<Vec<ItemPosition>, _>>()
    };
    let filter = ItemFilter {
        after: named(request.after)?,
        before: named(request.before)?,
        only: request.only.as_deref().map(all).transpose()?,
        since: request.since,
        until: request.until,
        publisher: request.with.clone(),
    };
    let max = request.page.max.min(MAX_RESULTS);
    let mark = match request.order.by {
        OrderField::Creation => ItemRef::ModifiedAt,
        OrderField::Modification => ItemRef::Position,
    };
    let page =
        PageRequest { max, ..request.page.clone() }.and_then(|id| position(id).ok().map(mark));
    let page = page.ok_or(Error::ItemNotFound)?;
    Ok(ItemQuery { page, order: request.order, filter })
}
