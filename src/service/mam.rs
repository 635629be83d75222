//! Queries of archives (XEP-0313), and ordered lists of items (XEP-0413).

use gjallar_pubsub::{
    Actor, ArchiveId, Attribution, Item, ItemBudget, ItemPage, ItemQuery, NodeConfig, NodeId,
    OrderField, PageRequest, ResultPage,
    op::mam::{self, QueryArchive},
};

use super::{Error, Service};

/// Maximum number of items of a node that can be listed in the order of their creation: all items of the node have to
/// be sorted.
const MAX_SORTED: usize = 10_000;

/// Page of an archive.
#[derive(Clone, Debug)]
pub struct ArchivePage {
    /// Configuration of the node.
    pub config: NodeConfig,
    /// Publisher shown for the items.
    pub attribution: Attribution,
    /// Items of the page.
    pub items: Vec<Item>,
    /// Archive ids of the items. If the scan ended before the page was full, also the id of the position that it
    /// reached.
    pub ids: ResultPage<ArchiveId>,
    /// `true` if the archive has no more items in the direction of the page.
    pub is_complete: bool,
}

impl Service {
    /// Returns a page of the archive of a node.
    ///
    /// # Errors
    /// As [`mam::query`]; [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if an item named in the request does
    /// not exist; [`NotImplemented`](gjallar_pubsub::Error::NotImplemented) if the items are requested in the order of
    /// their creation and the node has more than 10 000 items.
    pub async fn query_archive(
        &self,
        actor: &Actor,
        request: &QueryArchive,
    ) -> Result<ArchivePage, Error> {
        let (guard, contacts) = self.lock_committed_with_roster(&request.node).await?;
        let policies = self.policies();
        let context = self.context_with(&policies, &request.node, actor, contacts.as_deref());
        let listing =
            self.resolve_redirect(&request.node, mam::query(guard.node(), request, &context));
        let listing = listing.await?;
        let node = guard.node().ok_or(gjallar_pubsub::Error::NodeNotFound)?;
        // Each result is a separate message, so the page may exceed the size of a stanza.
        let budget = ItemBudget::stored(policies.limits().max_reply_bytes);
        let listed = self.listed(&request.node, &listing, &budget).await?;
        let ItemPage { part: ResultPage { entries: items, index, total }, is_complete, scanned_to } =
            listed;
        let mut ids: Vec<ArchiveId> = items.iter().map(Item::archive_id).collect();
        if let Some(position) = scanned_to {
            let at = if request.page.is_backward() { 0 } else { ids.len() };
            ids.insert(at, ArchiveId { epoch: node.epoch, position });
        }
        let ids = ResultPage { entries: ids, index, total };
        let attribution = Attribution::of(node, &node.config);
        Ok(ArchivePage { config: node.config.clone(), attribution, items, ids, is_complete })
    }

    /// Returns the first and the last item of the archive of a node, if it has any.
    ///
    /// # Errors
    /// As [`mam::query`].
    pub async fn archive_ends(
        &self,
        actor: &Actor,
        node: &NodeId,
    ) -> Result<Option<(Item, Item)>, Error> {
        let first = self
            .query_archive(actor, &QueryArchive::all(node.clone(), PageRequest::first(1)))
            .await?;
        let last = self
            .query_archive(actor, &QueryArchive::all(node.clone(), PageRequest::last(1)))
            .await?;
        Ok(first.items.into_iter().next().zip(last.items.into_iter().next()))
    }

    /// Lists a page of a node's items. The caller holds the guard of the node.
    pub(super) async fn listed(
        &self,
        id: &NodeId,
        listing: &ItemQuery,
        budget: &ItemBudget,
    ) -> Result<ItemPage, Error> {
        if listing.order.by == OrderField::Creation && self.item_count(id).await? > MAX_SORTED {
            let what = format!("ordering more than {MAX_SORTED} items by creation");
            return Err(gjallar_pubsub::Error::NotImplemented(what).into());
        }
        let listed = self.store.list(id, listing, budget).await;
        let listed = listed.map_err(|error| self.state.on_store_error(id, error))?;
        Ok(listed.ok_or(gjallar_pubsub::Error::ItemNotFound)?)
    }
}
