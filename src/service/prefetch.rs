//! Data that rules need from the store before they decide.

use std::collections::{BTreeMap, HashSet};

use jid::{BareJid, Jid};

use gjallar_pubsub::{
    Actor, FormerNode, Item, ItemBudget, ItemFilter, ItemId, ItemOrder, ItemPage, ItemQuery,
    ItemRef, Node, NodeId, OwnItems, OwnerHash, PageBound, PageRequest, Prefetch, Prefetched,
    ResultPage,
    op::{
        delete::RedirectCounts,
        presence_change,
        publish::{self, ExistingItems, NewItem},
        timers,
    },
};

use super::{
    Error, Service,
    node_cache::{LastItem, NodeGuard},
    service_state::ServiceState,
};

impl Service {
    /// Reads the data that a rule needs.
    pub(super) async fn prefetch(
        &self,
        actor: &Actor,
        id: &NodeId,
        guard: &mut NodeGuard,
        need: Prefetch<'_>,
    ) -> Result<Prefetched, Error> {
        let Some(node) = guard.node() else {
            if !matches!(need, Prefetch::ExistingItems(_) | Prefetch::Creation) {
                return Ok(Prefetched::default());
            }
            // The guard under which a node is deleted is held until the deletion is durable.
            let former = self.store.former(id).await;
            let former = former.map_err(|error| self.state.on_store_error(id, error))?;
            let own_nodes = self.state.node_counts.count_for_creator(&actor.bare());
            let existing = ExistingItems { former, ..ExistingItems::default() };
            return Ok(Prefetched {
                existing_items: existing,
                actor_node_count: own_nodes,
                ..Prefetched::default()
            });
        };
        match need {
            Prefetch::Nothing | Prefetch::Access | Prefetch::Creation => Ok(Prefetched::default()),
            Prefetch::Enrolled => {
                guard.wait_committed().await;
                let enrolled = self.store.owner_subscribed(&node.id).await;
                let enrolled =
                    enrolled.map_err(|error| self.state.on_store_error(&node.id, error))?;
                Ok(Prefetched { enrolled, ..Prefetched::default() })
            }
            Prefetch::Deletion => {
                let owner = FormerNode::sharer(node, &actor.bare()).map(OwnerHash::of_account);
                let redirects = Box::pin(self.redirects(owner)).await?;
                Ok(Prefetched { redirects, ..Prefetched::default() })
            }
            Prefetch::ExistingItems(request) => {
                let mut prefetched = Prefetched::default();
                if publish::needs_existing_items(&node.config) {
                    let id = node.id.clone();
                    guard.wait_committed().await;
                    prefetched.existing_items = self.existing_items(&id, &request.items).await?;
                } else if publish::looks_at_publishers(node, actor) {
                    prefetched.existing_items.replaced =
                        self.publishers(actor, guard, &request.items).await?;
                }
                if request.expected_newest.is_some() {
                    guard.wait_committed().await;
                    prefetched.existing_items.newest =
                        self.last_item(guard).await?.map(|item| (*item).clone());
                }
                Ok(prefetched)
            }
            Prefetch::Publishers(request) => {
                guard.wait_committed().await;
                // The rule refuses a larger batch without this data.
                let named = request.items.iter().take(self.policies().limits().max_batch);
                let named: Vec<_> = named.cloned().collect();
                let publishers = self.publishers_of(&node.id, &named).await?;
                Ok(Prefetched { publishers, ..Prefetched::default() })
            }
            Prefetch::LastItem | Prefetch::Configuration(..) => {
                let items = self.item_for_new_subscribers(guard).await?;
                Ok(Prefetched { items, ..Prefetched::default() })
            }
            Prefetch::Timers => {
                let expires = node.config.item_expire.millis().is_some();
                let needs_newest = timers::makes_digests(node) || node.config.purge_offline;
                let id = node.id.clone();
                guard.wait_committed().await;
                let page = async |page: PageRequest<ItemId>, is_needed: bool| {
                    let page = PageRequest { max: if is_needed { page.max } else { 0 }, ..page };
                    let part =
                        self.store.page(&id, &page, self.policies().limits().max_reply_bytes).await;
                    let part = part.map_err(|error| self.state.on_store_error(&id, error))?;
                    Ok::<_, Error>(part.map(|part| part.entries).unwrap_or_default())
                };
                let items = page(PageRequest::first(timers::MAX_EXPIRED + 1), expires).await?;
                let newest = page(PageRequest::last(timers::MAX_DIGESTED), needs_newest).await?;
                let ServiceState { interests, log_window, .. } = &*self.state;
                let has_interested = interests.is_any_at(&id)
                    || guard.node().is_some_and(|node| log_window.has_interested(node.epoch));
                Ok(Prefetched { items, newest, has_interested, ..Prefetched::default() })
            }
            Prefetch::Departure(entity) => Box::pin(self.departure(guard, entity)).await,
            Prefetch::OwnItems(own) => Box::pin(self.own_items(guard, &own)).await,
            Prefetch::EnrolledOf(entity) => {
                let enrolled = Box::pin(self.enrolled_of(guard, entity)).await?;
                Ok(Prefetched { enrolled, ..Prefetched::default() })
            }
            Prefetch::Subscriptions => {
                let max = self.policies().limits().max_subscriptions_per_jid;
                let own = Box::pin(self.count_subscriptions_of(&actor.bare(), max)).await;
                let subscriptions = own.map_err(Error::Unknown)?;
                let items = self.item_for_new_subscribers(guard).await?;
                Ok(Prefetched { items, subscriptions, ..Prefetched::default() })
            }
        }
    }

    /// Returns the numbers of deleted nodes with a redirect: of all, and of those that count toward the limit of
    /// `owner`.
    async fn redirects(&self, owner: Option<OwnerHash>) -> Result<RedirectCounts, Error> {
        let all = self.store.redirects_len().await.map_err(Error::Unknown)?;
        let own = match owner {
            Some(owner) => self.store.redirects_of(&owner).await.map_err(Error::Unknown)?,
            None => 0,
        };
        Ok(RedirectCounts { all, own })
    }

    /// Reads the data for the departure of an entity from a node.
    async fn departure(
        &self,
        guard: &mut NodeGuard,
        entity: &BareJid,
    ) -> Result<Prefetched, Error> {
        let mut prefetched = Prefetched::default();
        if guard.node().is_some_and(|node| node.config.tempsub) {
            prefetched.enrolled = self.enrolled_of(guard, entity).await?;
        }
        if guard.node().is_some_and(|node| node.config.purge_offline) {
            guard.wait_committed().await;
            let last = self.last_item(guard).await?;
            prefetched.newest = last.iter().map(|item| (**item).clone()).collect();
        }
        Ok(prefetched)
    }

    /// Reads a page of a publisher's items, at a node that removes them when the publisher goes offline.
    async fn own_items(&self, guard: &NodeGuard, own: &OwnItems<'_>) -> Result<Prefetched, Error> {
        let is_concerned = |node: &&Node| presence_change::loses_own_items(node, own.publisher);
        let Some(node) = guard.node().filter(is_concerned) else {
            return Ok(Prefetched::default());
        };
        let edge = own
            .after
            .map_or(PageBound::At(0), |position| PageBound::After(ItemRef::Position(position)));
        let page = PageRequest { max: own.max, edge };
        let filter =
            ItemFilter { publisher: Some(own.publisher.clone().into()), ..ItemFilter::default() };
        let listing = ItemQuery { page, order: ItemOrder::default(), filter };
        let budget = ItemBudget::stored(self.policies().limits().max_reply_bytes);
        guard.wait_committed().await;
        let listed = self.store.list(&node.id, &listing, &budget).await;
        let listed = listed.map_err(|error| self.state.on_store_error(&node.id, error))?;
        let listed = listed.unwrap_or_else(ItemPage::empty);
        let more_after = listed.more_after();
        Ok(Prefetched { items: listed.part.entries, more_after, ..Prefetched::default() })
    }

    /// Returns the JIDs of an entity that an owner subscribed to a node.
    async fn enrolled_of(
        &self,
        guard: &NodeGuard,
        entity: &BareJid,
    ) -> Result<HashSet<Jid>, Error> {
        let Some(node) = guard.node() else { return Ok(HashSet::new()) };
        let subscribed: Vec<_> = node.subscriptions_of_address(entity).cloned().collect();
        if !guard.wait_committed().await {
            // A commit failed, so the store is incomplete. The decision under this guard fails as well.
            return Ok(HashSet::new());
        }
        let enrolled = self.store.enrolled_among(&node.id, &subscribed).await;
        enrolled.map_err(|error| self.state.on_store_error(&node.id, error))
    }

    /// Returns the existing items that a publish request needs if the node is full: their number, the oldest items, and
    /// the items that the request overwrites.
    async fn existing_items(&self, id: &NodeId, new: &[NewItem]) -> Result<ExistingItems, Error> {
        let replaced = self.publishers_of(id, &self.named(new)).await?;
        let page = PageRequest::first(2 * new.len().min(self.policies().limits().max_batch));
        let oldest = self.store.page_of_ids(id, &page, 0, usize::MAX).await;
        let oldest = oldest.map_err(|error| self.state.on_store_error(id, error))?;
        let oldest = oldest.unwrap_or_else(ResultPage::empty);
        Ok(ExistingItems {
            former: None,
            newest: None,
            replaced,
            total: oldest.total.unwrap_or_default(),
            oldest: oldest.entries.into_iter().map(|(id, _)| id).collect(),
        })
    }

    /// Returns the publishers of the stored items that the new items would overwrite. Waits for pending commits only if
    /// they change one of these items, or if an item in the store has another publisher than the actor. Does not wait
    /// for evictions: an evicted item causes no refusal.
    async fn publishers(
        &self,
        actor: &Actor,
        guard: &NodeGuard,
        new: &[NewItem],
    ) -> Result<BTreeMap<ItemId, BareJid>, Error> {
        let named = self.named(new);
        let Some(node) = guard.node().filter(|_| !named.is_empty()) else {
            return Ok(BTreeMap::new());
        };
        if !guard.pending_commits().changes_any(&named) {
            let found = self.publishers_of(&node.id, &named).await?;
            if found.values().all(|publisher| *publisher == actor.bare()) {
                return Ok(found);
            }
        }
        guard.wait_committed().await;
        self.publishers_of(&node.id, &named).await
    }

    /// Returns the publishers of those items in `named` that the store has.
    async fn publishers_of(
        &self,
        id: &NodeId,
        named: &[ItemId],
    ) -> Result<BTreeMap<ItemId, BareJid>, Error> {
        let publishers = self.store.publishers(id, named).await;
        publishers.map_err(|error| self.state.on_store_error(id, error))
    }

    /// Returns the item ids that a request names, of its first `limits.max_batch` items.
    fn named(&self, new: &[NewItem]) -> Vec<ItemId> {
        let names = new.iter().take(self.policies().limits().max_batch);
        names.filter_map(|item| item.id.clone()).collect()
    }

    async fn item_for_new_subscribers(&self, guard: &mut NodeGuard) -> Result<Vec<Item>, Error> {
        let sends = |node: &Node| node.config.send_last_published_item.is_on_sub();
        if !guard.node().is_some_and(sends) {
            return Ok(Vec::new());
        }
        if matches!(guard.last(), LastItem::Unread) {
            guard.wait_committed().await;
        }
        let last = self.last_item(guard).await?;
        Ok(last.iter().map(|item| (**item).clone()).collect())
    }
}
