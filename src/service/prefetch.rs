//! Data that rules need from the store before they decide.

use std::collections::{BTreeMap, HashSet};

use jid::{BareJid, Jid};

use gjallar_pubsub::{
    Actor, FormerNode, Item, ItemBudget, ItemFilter, ItemId, ItemOrder, ItemPage, ItemPosition,
    ItemQuery, ItemRef, Node, NodeId, OwnerHash, PageBound, PageRequest, ResultPage, Roster,
    may_configure, may_publish,
    op::{
        configure::Configure,
        delete::RedirectCounts,
        presence_change,
        publish::{self, ExistingItems, NewItem, Publish},
        retract::{self, Retract},
        timers,
    },
};

use super::{
    Error, Service,
    node_cache::{LastItem, NodeGuard},
};

/// Data that a rule needs from the store.
pub(super) enum PrefetchRequest<'a> {
    Nothing,
    /// The record of the deleted node with this name, and the number of nodes that the actor's account created.
    Creation(&'a NodeId),
    /// The numbers of deleted nodes with a redirect: in total, and in the share of the owner.
    Deletion,
    /// The newest item, if the node removes it when its publisher goes offline. The JIDs of this entity that an owner
    /// subscribed, if subscriptions are temporary.
    Departure(&'a BareJid),
    /// Items of a publisher that went offline.
    Own(&'a OwnItems<'a>),
    /// The JIDs of this entity that an owner subscribed.
    EnrolledOf(&'a BareJid),
    /// The JIDs that an owner subscribed.
    Enrolled,
    /// Only the roster that gives access.
    Access,
    /// The publishers of the items to retract.
    Publishers(&'a Retract),
    /// If the node does not exist: the record of the deleted node with this name, and the number of nodes of the
    /// actor's account. If the node exists: existing items, if the node may be full; the publishers of replaced items;
    /// the newest item, if the request compares it.
    Room(&'a Publish),
    /// The newest item, if new subscribers receive it.
    LastItem,
    /// The newest item, if new subscribers receive it, and the roster that gives access after this change by this
    /// actor.
    Configuration(&'a Actor, &'a Configure),
    /// Items for timer-driven operations, and cached rosters.
    Time,
    /// The newest item, if new subscribers receive it, and the number of subscriptions of the actor's account.
    Subscriptions,
}

/// Selection of a page of a publisher's items.
pub(super) struct OwnItems<'a> {
    pub(super) publisher: &'a BareJid,
    /// Position after which the page begins; `None` for the beginning of the node.
    pub(super) after: Option<ItemPosition>,
    pub(super) max: usize,
}

/// Data read from the store for a rule.
#[derive(Default)]
pub(super) struct Prefetched {
    pub(super) items: Vec<Item>,
    /// Position after which the publisher may have more items.
    pub(super) more_after: Option<ItemPosition>,
    pub(super) newest: Vec<Item>,
    pub(super) existing_items: ExistingItems,
    pub(super) publishers: BTreeMap<ItemId, BareJid>,
    pub(super) actor_node_count: u64,
    pub(super) subscriptions: usize,
    pub(super) redirects: RedirectCounts,
    pub(super) enrolled: HashSet<Jid>,
}

impl Service {
    /// Reads the data that a rule needs. Reads nothing if the rule refuses the actor whatever the store contains.
    pub(super) async fn prefetch(
        &self,
        actor: &Actor,
        guard: &mut NodeGuard,
        need: &PrefetchRequest<'_>,
        contacts: Option<&Roster>,
    ) -> Result<Prefetched, Error> {
        let Some(node) = guard.node() else {
            let id = match need {
                PrefetchRequest::Room(request) => &request.node,
                PrefetchRequest::Creation(id) => *id,
                _ => return Ok(Prefetched::default()),
            };
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
        if self.is_refused(actor, node, need, contacts) {
            return Ok(Prefetched::default());
        }
        match need {
            PrefetchRequest::Nothing | PrefetchRequest::Access | PrefetchRequest::Creation(_) => {
                Ok(Prefetched::default())
            }
            PrefetchRequest::Enrolled => {
                guard.wait_committed().await;
                let enrolled = self.store.owner_subscribed(&node.id).await;
                let enrolled =
                    enrolled.map_err(|error| self.state.on_store_error(&node.id, error))?;
                Ok(Prefetched { enrolled, ..Prefetched::default() })
            }
            PrefetchRequest::Deletion => {
                let owner = FormerNode::sharer(node, &actor.bare()).map(OwnerHash::of_account);
                let redirects = Box::pin(self.redirects(owner)).await?;
                Ok(Prefetched { redirects, ..Prefetched::default() })
            }
            PrefetchRequest::Room(request) => {
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
            PrefetchRequest::Publishers(request) => {
                guard.wait_committed().await;
                // The rule refuses a larger batch without this data.
                let named = request.items.iter().take(self.policies().limits().max_batch);
                let named: Vec<_> = named.cloned().collect();
                let publishers = self.publishers_of(&node.id, &named).await?;
                Ok(Prefetched { publishers, ..Prefetched::default() })
            }
            PrefetchRequest::LastItem | PrefetchRequest::Configuration(..) => {
                let items = self.item_for_new_subscribers(guard).await?;
                Ok(Prefetched { items, ..Prefetched::default() })
            }
            PrefetchRequest::Time => {
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
                Ok(Prefetched { items, newest, ..Prefetched::default() })
            }
            PrefetchRequest::Departure(entity) => Box::pin(self.departure(guard, entity)).await,
            PrefetchRequest::Own(own) => Box::pin(self.own_items(guard, own)).await,
            PrefetchRequest::EnrolledOf(entity) => {
                let enrolled = Box::pin(self.enrolled_of(guard, entity)).await?;
                Ok(Prefetched { enrolled, ..Prefetched::default() })
            }
            PrefetchRequest::Subscriptions => {
                let max = self.policies().limits().max_subscriptions_per_jid;
                let own = Box::pin(self.count_subscriptions_of(&actor.bare(), max)).await;
                let subscriptions = own.map_err(Error::Unknown)?;
                let items = self.item_for_new_subscribers(guard).await?;
                Ok(Prefetched { items, subscriptions, ..Prefetched::default() })
            }
        }
    }

    /// Returns the number of deleted nodes with a redirect, in total and in the share of an owner.
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

    /// Returns `true` if a rule refuses the actor whatever the store contains.
    fn is_refused(
        &self,
        actor: &Actor,
        node: &Node,
        need: &PrefetchRequest<'_>,
        contacts: Option<&Roster>,
    ) -> bool {
        match need {
            PrefetchRequest::Configuration(..)
            | PrefetchRequest::Enrolled
            | PrefetchRequest::LastItem => may_configure(node, actor).is_err(),
            PrefetchRequest::Publishers(_) => {
                let policies = self.policies();
                let cx = self.context_with(&policies, &node.id, actor, contacts);
                retract::check_access(node, &cx).is_err()
            }
            PrefetchRequest::Room(_) => may_publish(node, actor).is_err(),
            PrefetchRequest::Nothing
            | PrefetchRequest::Creation(_)
            | PrefetchRequest::Deletion
            | PrefetchRequest::Departure(_)
            | PrefetchRequest::Own(_)
            | PrefetchRequest::EnrolledOf(_)
            | PrefetchRequest::Access
            | PrefetchRequest::Time
            | PrefetchRequest::Subscriptions => false,
        }
    }

    /// Returns the existing items of a node that may be full.
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
