//! Showing archives (XEP-0313), and lists of items in an order (XEP-0413).

use gjallar_pubsub::{
    Actor, ArchiveId, Attribution, Item, ItemBudget, ItemPage, ItemQuery, NodeConfig, NodeId,
    OrderField, PageRequest, ResultPage,
    op::mam::{self, QueryArchive},
};

use super::{Error, Service};

/// The most items of a node that are listed in the order of their creation: all have to be sorted.
const MAX_SORTED: usize = 10_000;

/// A part of an archive.
#[derive(Clone, Debug)]
pub struct ArchivePage {
    /// How the node behaves.
    pub config: NodeConfig,
    /// The publisher that its items show.
    pub attribution: Attribution,
    /// What is in the part.
    pub items: Vec<Item>,
    /// What these are called; and, if that ended the part, how far was looked.
    pub ids: ResultPage<ArchiveId>,
    /// Whether the archive has no more in the direction of the page.
    pub is_complete: bool,
}

impl Service {
    /// Shows a part of the archive of a node.
    ///
    /// # Errors
    /// As [`mam::query`]; [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if an item that is named is not there;
    /// [`NotImplemented`](gjallar_pubsub::Error::NotImplemented) if the node has more items than can be sorted.
    pub async fn query_archive(
        &self,
        actor: &Actor,
        request: &QueryArchive,
    ) -> Result<ArchivePage, Error> {
        let (turn, contacts) = self.settled_turn_with_contacts(&request.node).await?;
        let policies = self.policies();
        let context = self.context_with(&policies, &request.node, actor, contacts.as_deref());
        let listing =
            self.resolve_redirect(&request.node, mam::query(turn.node(), request, &context));
        let listing = listing.await?;
        let node = turn.node().ok_or(gjallar_pubsub::Error::NodeNotFound)?;
        // Each result is a message of its own, so their sum need not fit in a stanza.
        let budget = ItemBudget::stored(policies.limits().max_reply_bytes);
        let listed = self.listed(&request.node, &listing, &budget).await?;
        let ItemPage {
            part: ResultPage { entries: items, index, total },
            is_complete,
            scanned_to: looked_up_to,
        } = listed;
        let mut ids: Vec<ArchiveId> = items.iter().map(Item::archive_id).collect();
        if let Some(position) = looked_up_to {
            let at = if request.page.is_backward() { 0 } else { ids.len() };
            ids.insert(at, ArchiveId { epoch: node.epoch, position });
        }
        let ids = ResultPage { entries: ids, index, total };
        let attribution = Attribution::of(node, &node.config);
        Ok(ArchivePage { config: node.config.clone(), attribution, items, ids, is_complete })
    }

    /// The first and the last item of the archive of a node, if it has any.
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

    /// A part of a list of items of a node in whose turn this is.
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
        let listed = listed.map_err(|error| self.memory.on_store_error(id, error))?;
        Ok(listed.ok_or(gjallar_pubsub::Error::ItemNotFound)?)
    }
}
