//! Retraction of many items of a node in batches.

use std::time::Duration;

use gjallar_pubsub::{
    Actor, ItemBudget, ItemFilter, ItemOrder, ItemPage, ItemQuery, ItemRef, NodeId, PageBound,
    PageRequest, Timestamp, op::retract::Retract,
};

use super::{Error, Service};

impl Service {
    /// Retracts the items of a node that are older than `age`, and notifies subscribers if the node is configured so
    /// (`pubsub#notify_retract`). Returns the number of retracted items.
    ///
    /// # Errors
    /// As [`Service::execute`] for a [`Retract`].
    pub async fn retract_older(
        &self,
        actor: &Actor,
        node: &NodeId,
        age: Duration,
    ) -> Result<usize, Error> {
        // An entity without the right to retract is refused even if no item is that old.
        self.configuration(actor, node).await?;
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let until = Timestamp((self.clock)().0.saturating_sub(age).saturating_sub(1));
        let filter = ItemFilter { until: Some(until), ..ItemFilter::default() };
        self.retract_all(actor, node, &filter).await
    }

    /// Retracts all items that match a filter, in batches of at most `limits.max_batch`. Returns the number of
    /// retracted items.
    pub(super) async fn retract_all(
        &self,
        actor: &Actor,
        node: &NodeId,
        filter: &ItemFilter,
    ) -> Result<usize, Error> {
        let mut listing = self.item_query(filter);
        let mut retracted = 0;
        loop {
            let listed = self.list_items(node, &listing).await?;
            let items: Vec<_> = listed.part.entries.into_iter().map(|item| item.id).collect();
            let number = items.len();
            if number > 0 {
                let request = Retract { node: node.clone(), items, notify: false };
                match self.execute(actor, &request).await {
                    Ok(()) => retracted += number,
                    // Another entity retracted one of the items meanwhile.
                    Err(Error::Refused(gjallar_pubsub::Error::ItemNotFound)) => {}
                    Err(error) => return Err(error),
                }
            } else if let Some(position) = listed.scanned_to {
                listing.page.edge = PageBound::After(ItemRef::Position(position));
            } else {
                return Ok(retracted);
            }
        }
    }

    pub(super) fn item_query(&self, filter: &ItemFilter) -> ItemQuery {
        let page = PageRequest::first(self.policies().limits().max_batch);
        ItemQuery { page, order: ItemOrder::default(), filter: filter.clone() }
    }

    /// Returns a page of a node's items; an empty page if the node does not exist. The page may begin after a position
    /// whose item no longer exists.
    pub(super) async fn list_items(
        &self,
        node: &NodeId,
        listing: &ItemQuery,
    ) -> Result<ItemPage, Error> {
        let budget = ItemBudget::stored(self.policies().limits().max_reply_bytes);
        let listed = self.store.list(node, listing, &budget).await;
        let listed = listed.map_err(|error| self.state.on_store_error(node, error))?;
        Ok(listed.unwrap_or_else(ItemPage::empty))
    }
}
