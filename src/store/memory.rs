//! Store in memory without durability: for tests, and for services that need no nodes after the end of the process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jid::{BareJid, Jid};

use gjallar_pubsub::{
    Affiliation, Change, Changes, FormerNode, Item, ItemBudget, ItemId, ItemOrder, ItemPage,
    ItemPosition, ItemQuery, ItemRef, Node, NodeId, OwnerHash, PageBound, PageRequest, ResultPage,
    Subscription, byte_budget,
    op::{discover::NodeSummary, subscriptions},
    written_len,
};

use super::{
    Commit, CommitReceipt, MAX_FORMER_NODES, NodeNumber, OnCommit, Owed, Partial, Store,
    StoreError, Told, deleted_nodes::FormerShares, paginate::paginate,
};

/// Store in memory. Commits are atomic, and last until the process ends.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<MemoryTables>);

#[derive(Debug, Default)]
struct MemoryTables {
    key: RandomState,
    last_number: NodeNumber,
    numbers: HashMap<NodeId, NodeNumber>,
    nodes: BTreeMap<NodeNumber, StoredNode>,
    /// Records of deleted nodes. Each has the key under which `moved` (with a redirect) or `deleted` (without one)
    /// lists the node.
    former: HashMap<NodeId, ((u64, NodeNumber), FormerNode)>,
    /// Names of deleted nodes with a redirect, by node number. The first number of each key is always 0, so that the
    /// keys of `moved` and `deleted` have the same type.
    moved: BTreeMap<(u64, NodeNumber), NodeId>,
    /// Names of deleted nodes without a redirect, by time of deletion and node number.
    deleted: BTreeMap<(u64, NodeNumber), NodeId>,
    shares: FormerShares,
    presence_refusals: BTreeSet<BareJid>,
}

#[derive(Debug)]
struct StoredNode {
    node: Node,
    items: BTreeMap<ItemPosition, Item>,
    positions: HashMap<ItemId, ItemPosition>,
    bytes: u64,
    /// JIDs whose subscription was created by an owner on their behalf.
    enrolled: HashSet<Jid>,
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, MemoryTables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryTables {
    fn get(&self, id: &NodeId) -> Option<&StoredNode> {
        self.nodes.get(self.numbers.get(id)?)
    }

    fn commit(&mut self, id: &NodeId, changes: &Changes) -> u64 {
        for change in changes.iter() {
            if let Change::Created(node) = change {
                self.last_number = self.last_number.next();
                self.numbers.insert(id.clone(), self.last_number);
                self.forget_former(id);
                self.nodes.insert(self.last_number, StoredNode::new(node));
            }
        }
        let Some(number) = self.numbers.get(id).copied() else { return 0 };
        let mut evicted = 0;
        if let Some(stored) = self.nodes.get_mut(&number) {
            stored.node.apply(changes);
            evicted = changes.iter().map(|change| stored.change_items(change)).sum();
        }
        for change in changes.iter() {
            let Change::Deleted(former) = change else { continue };
            self.nodes.remove(&number);
            self.numbers.remove(id);
            if let Some(former) = former {
                self.remember(id, number, former);
            }
        }
        evicted
    }

    fn remember(&mut self, id: &NodeId, number: NodeNumber, former: &FormerNode) {
        let position = match former.redirect {
            Some(_) => (0, number),
            None => (former.deleted.0, number),
        };
        let list = if former.redirect.is_some() { &mut self.moved } else { &mut self.deleted };
        list.insert(position, id.clone());
        if let Some(owner) = former.share() {
            let is_reserved = former.redirect.is_none();
            let own_oldest = self.shares.oldest_of_full(&owner).filter(|_| is_reserved);
            if let Some(oldest) = own_oldest.and_then(|oldest| self.deleted.get(&oldest).cloned()) {
                self.forget_former(&oldest);
            }
            self.shares.add(owner, is_reserved.then_some(position));
        }
        self.former.insert(id.clone(), (position, former.clone()));
        while let Some((_, oldest)) = self.deleted.first_key_value() {
            let is_over = self.former.get(oldest);
            let is_over = is_over.is_some_and(|(_, other)| other.is_over(former.deleted));
            if self.former.len() - self.moved.len() <= MAX_FORMER_NODES && !is_over {
                break;
            }
            let oldest = oldest.clone();
            self.forget_former(&oldest);
        }
    }

    fn forget_former(&mut self, id: &NodeId) {
        let Some((position, former)) = self.former.remove(id) else { return };
        let list = if former.redirect.is_some() { &mut self.moved } else { &mut self.deleted };
        list.remove(&position);
        if let Some(owner) = former.share() {
            self.shares.remove(&owner, former.redirect.is_none().then_some(position));
        }
    }
}

impl StoredNode {
    fn new(node: &Node) -> Self {
        Self {
            node: node.clone(),
            items: BTreeMap::new(),
            positions: HashMap::new(),
            bytes: 0,
            enrolled: HashSet::new(),
        }
    }

    /// Applies a change to the items; returns the number of evicted items.
    fn change_items(&mut self, change: &Change) -> u64 {
        match change {
            Change::Published(item) => {
                let before = self.retract(&item.id);
                self.positions.insert(item.id.clone(), item.position());
                self.bytes += item.size() as u64;
                let created = before.map_or(item.created, |before| before.created);
                self.items.insert(item.position(), Item { created, ..(**item).clone() });
            }
            Change::Retracted(id) => {
                self.retract(id);
            }
            Change::ItemsEvicted { keep, max_bytes } => {
                return self.evict(*keep as usize, *max_bytes);
            }
            Change::Purged => {
                self.items.clear();
                self.positions.clear();
                self.bytes = 0;
            }
            Change::Created(_)
            | Change::Configured(_)
            | Change::Revised(_)
            | Change::Deleted { .. }
            | Change::SubscriptionOptionsSet(..)
            | Change::AffiliationSet(..) => {}
            Change::SubscribedByOwner(jid) => {
                self.enrolled.insert(jid.clone());
            }
            Change::SubscriptionRequested(jid)
            | Change::Subscribed(jid)
            | Change::Unsubscribed(jid) => {
                self.enrolled.remove(jid);
            }
        }
        0
    }

    fn retract(&mut self, id: &ItemId) -> Option<Item> {
        let item = self.items.remove(&self.positions.remove(id)?)?;
        self.bytes -= item.size() as u64;
        Some(item)
    }

    fn evict(&mut self, keep: usize, max_bytes: u64) -> u64 {
        let mut evicted = 0;
        while self.items.len() > keep || (self.bytes > max_bytes && self.items.len() > 1) {
            let Some(oldest) = self.items.values().next().map(|item| item.id.clone()) else {
                break;
            };
            self.retract(&oldest);
            evicted += 1;
        }
        evicted
    }

    fn select(&self, ids: &[ItemId]) -> Vec<&Item> {
        let mut positions: Vec<_> = ids.iter().filter_map(|id| self.positions.get(id)).collect();
        positions.sort_unstable();
        positions.dedup();
        positions.iter().filter_map(|position| self.items.get(position)).collect()
    }

    fn list(
        &self,
        query: &ItemQuery,
        fits: impl FnMut(&Item) -> bool,
    ) -> Option<Result<ItemPage, StoreError>> {
        let by = query.order.by;
        let marked = |mark: &ItemRef| match mark {
            ItemRef::Name(id) => Some(by.of(self.items.get(self.positions.get(id)?)?)),
            ItemRef::Position(position) => Some(*position),
            ItemRef::ModifiedAt(position) => Some(by.of(self.items.get(position)?)),
        };
        let edge = match &query.page.edge {
            PageBound::After(mark) | PageBound::Before(mark) => Some(marked(mark)?),
            PageBound::At(_) | PageBound::Last => None,
        };
        let mut named = query.filter.only.iter().flatten();
        if named.any(|position| !self.items.contains_key(position)) {
            return None;
        }
        let (after, before) = query.between(edge);
        let mut positions: Vec<_> =
            self.items.values().map(|item| (by.of(item), item.position())).collect();
        positions.retain(|(by, position)| {
            after.is_none_or(|after| *by > after)
                && before.is_none_or(|before| *by < before)
                && query.filter.names(*position)
        });
        positions.sort_unstable();
        let positions = positions.into_iter().map(|(_, position)| Ok(position));
        let gone = || StoreError::Failed("an item is missing".into());
        let read = |position| self.items.get(&position).cloned().ok_or_else(gone);
        Some(paginate(query, self.items.len(), positions, read, read, fits))
    }

    fn summary(&self) -> NodeSummary {
        NodeSummary {
            node: self.node.id.clone(),
            epoch: self.node.epoch,
            title: self.node.config.title.clone(),
            access_model: self.node.config.access_model,
            publish_model: self.node.config.publish_model,
            r#type: self.node.config.r#type.clone(),
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn key(&self) -> u64 {
        self.tables().key.hash_one(0)
    }

    fn commit(&self, commit: Commit, then: OnCommit) {
        if commit.chain.is_poisoned() {
            return then(Err(StoreError::Failed("an earlier commit failed".into())));
        }
        let evicted = self.tables().commit(&commit.node, &commit.changes);
        then(Ok(CommitReceipt { debts: Vec::new(), evicted, sync: None }));
    }

    async fn poll(&self, _: Option<&[NodeId]>) -> Result<Vec<Owed>, StoreError> {
        Ok(Vec::new())
    }

    async fn acknowledge(&self, _: Told) -> Result<(), StoreError> {
        Ok(())
    }

    async fn revoke_implicit(&self, _: &NodeId, _: BTreeSet<Jid>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        Ok(self.tables().get(id).map(|stored| stored.node.clone()))
    }

    async fn node_counts(&self) -> Result<HashMap<BareJid, u64>, StoreError> {
        let mut creators = HashMap::new();
        for stored in self.tables().nodes.values() {
            *creators.entry(stored.node.creator.clone()).or_default() += 1;
        }
        Ok(creators)
    }

    async fn nodes_with_timers(&self) -> Result<Vec<NodeId>, StoreError> {
        // Includes nodes without timers, which is allowed: an operation without due work does nothing.
        Ok(self.tables().nodes.values().map(|stored| stored.node.id.clone()).collect())
    }

    async fn nodes(
        &self,
        page: &PageRequest<NodeNumber>,
    ) -> Result<Partial<Vec<(NodeNumber, NodeSummary)>>, StoreError> {
        let tables = self.tables();
        let (numbers, skipped) = super::numbers(page);
        let summary = |(number, stored): (&NodeNumber, &StoredNode)| (*number, stored.summary());
        let nodes = tables.nodes.range(numbers).map(summary);
        let mut found: Vec<_> = match page.is_backward() {
            true => nodes.rev().take(page.max).collect(),
            false => nodes.skip(skipped).take(page.max).collect(),
        };
        if page.is_backward() {
            found.reverse();
        }
        Ok(found.into())
    }

    async fn summary(
        &self,
        node: &NodeId,
    ) -> Result<Option<(NodeNumber, NodeSummary)>, StoreError> {
        let tables = self.tables();
        let number = tables.numbers.get(node).copied();
        Ok(number.zip(tables.get(node).map(StoredNode::summary)))
    }

    async fn former(&self, node: &NodeId) -> Result<Option<FormerNode>, StoreError> {
        Ok(self.tables().former.get(node).map(|(_, former)| former.clone()))
    }

    async fn former_nodes(&self) -> Result<Vec<(NodeId, FormerNode)>, StoreError> {
        let tables = self.tables();
        let nodes = tables.moved.values().chain(tables.deleted.values());
        let former = |node: &NodeId| {
            tables.former.get(node).map(|(_, former)| (node.clone(), former.clone()))
        };
        Ok(nodes.filter_map(former).collect())
    }

    async fn redirects_len(&self) -> Result<usize, StoreError> {
        Ok(self.tables().moved.len())
    }

    async fn redirects_of(&self, account: &OwnerHash) -> Result<usize, StoreError> {
        Ok(self.tables().shares.redirects_of(account))
    }

    async fn items(
        &self,
        node: &NodeId,
        ids: &[ItemId],
        budget: &ItemBudget,
    ) -> Result<ResultPage<Item>, StoreError> {
        let tables = self.tables();
        let selected = tables.get(node).map(|stored| stored.select(ids)).unwrap_or_default();
        let mut fits = budget.fits();
        let part = PageRequest::<()>::last(usize::MAX).of(selected, |_| (), |item| fits(item));
        let part = part.unwrap_or_else(ResultPage::empty).map(Item::clone);
        Ok(ResultPage { index: None, ..part })
    }

    async fn publishers(
        &self,
        node: &NodeId,
        ids: &[ItemId],
    ) -> Result<BTreeMap<ItemId, BareJid>, StoreError> {
        let tables = self.tables();
        let items = tables.get(node).map(|stored| stored.select(ids)).unwrap_or_default();
        Ok(items.into_iter().map(|item| (item.id.clone(), item.publisher.clone())).collect())
    }

    async fn list(
        &self,
        node: &NodeId,
        query: &ItemQuery,
        budget: &ItemBudget,
    ) -> Result<Option<ItemPage>, StoreError> {
        let tables = self.tables();
        let Some(stored) = tables.get(node) else { return Ok(Some(ItemPage::empty())) };
        stored.list(query, budget.fits()).transpose()
    }

    async fn page_of_ids(
        &self,
        node: &NodeId,
        page: &PageRequest<ItemRef>,
        entry_bytes: usize,
        max_bytes: usize,
    ) -> Result<Option<ResultPage<(ItemId, ItemPosition)>>, StoreError> {
        let tables = self.tables();
        let Some(stored) = tables.get(node) else { return Ok(Some(ResultPage::empty())) };
        let query = ItemQuery::of(page.clone(), ItemOrder::default());
        let fits =
            byte_budget(max_bytes, 0, |item: &Item| entry_bytes + written_len(item.id.as_str()));
        let listed = stored.list(&query, fits).transpose()?;
        Ok(listed.map(|listed| listed.part.map(|item| (item.id.clone(), item.position()))))
    }

    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Affiliation)>>, StoreError> {
        let tables = self.tables();
        let nodes = tables.nodes.values().map(|stored| &stored.node);
        Ok(nodes
            .map(|node| (node.id.clone(), node.affiliation_of_address(entity)))
            .filter(|(_, affiliation)| *affiliation != Affiliation::None)
            .collect::<Vec<_>>()
            .into())
    }

    async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Subscription)>>, StoreError> {
        let tables = self.tables();
        let nodes = tables.nodes.values().map(|stored| &stored.node);
        Ok(nodes
            .flat_map(|node| {
                let pending = node.pending_of_address(entity);
                let all = node.subscriptions_of_address(entity).chain(pending);
                let all = all.flat_map(|jid| subscriptions::of_jid(node, jid));
                all.map(|subscription| (node.id.clone(), subscription))
            })
            .collect::<Vec<_>>()
            .into())
    }

    async fn owner_subscribed(&self, node: &NodeId) -> Result<HashSet<Jid>, StoreError> {
        Ok(self.tables().get(node).map(|stored| stored.enrolled.clone()).unwrap_or_default())
    }

    async fn enrolled_among(
        &self,
        node: &NodeId,
        subscribers: &[Jid],
    ) -> Result<HashSet<Jid>, StoreError> {
        let tables = self.tables();
        let is_enrolled =
            |jid: &&Jid| tables.get(node).is_some_and(|stored| stored.enrolled.contains(*jid));
        Ok(subscribers.iter().filter(is_enrolled).cloned().collect())
    }

    async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<Partial<usize>, StoreError> {
        let tables = self.tables();
        let own = tables.nodes.values().flat_map(|stored| {
            let own = |jid: &&Jid| !stored.enrolled.contains(*jid);
            let pending = stored.node.pending_of_address(entity);
            stored.node.subscriptions_of_address(entity).chain(pending).filter(own)
        });
        Ok(own.take(up_to).count().into())
    }

    async fn subscribed_aliases(&self) -> Result<BTreeSet<BareJid>, StoreError> {
        let tables = self.tables();
        let jids = tables.nodes.values().flat_map(|stored| {
            stored.node.subscribers().chain(stored.node.pending()).map(Jid::to_bare)
        });
        Ok(jids.filter(BareJid::is_alias).collect())
    }

    async fn presence_refusals(&self) -> Result<Vec<BareJid>, StoreError> {
        Ok(self.tables().presence_refusals.iter().cloned().collect())
    }

    async fn set_presence_refusals(&self, changes: &[(BareJid, bool)]) -> Result<(), StoreError> {
        let refusals = &mut self.tables().presence_refusals;
        for (entity, refuses) in changes {
            match refuses {
                true => refusals.insert(entity.clone()),
                false => refusals.remove(entity),
            };
        }
        Ok(())
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn snapshot_to(&self, _: &Path) -> Result<(), StoreError> {
        Err(StoreError::Failed("a store in memory has no files".into()))
    }

    async fn close(&self) {}
}
