//! A store that forgets: for tests, and for services whose nodes may go with the process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jid::{BareJid, Jid};

use crate::pubsub::{
    Affiliation, Change, Changes, Item, ItemId, Node, NodeId, Notification,
    op::{discover::NodeSummary, retrieve::Selection},
};

use super::{Cursor, Debt, Owed, Store, StoreError, Told, ids_that_fit, newest_that_fit};

/// A store in memory. Its commits are atomic, and durable until the process ends.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    last_number: u64,
    numbers: HashMap<NodeId, u64>,
    nodes: BTreeMap<u64, Kept>,
}

#[derive(Debug)]
struct Kept {
    node: Node,
    items: BTreeMap<(u64, u16), Item>,
    places: HashMap<ItemId, (u64, u16)>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn get(&self, id: &NodeId) -> Option<&Kept> {
        self.nodes.get(self.numbers.get(id)?)
    }

    fn commit(&mut self, id: &NodeId, changes: &Changes) {
        for change in changes.iter() {
            if let Change::Created(node) = change {
                self.last_number += 1;
                self.numbers.insert(id.clone(), self.last_number);
                let kept =
                    Kept { node: (**node).clone(), items: BTreeMap::new(), places: HashMap::new() };
                self.nodes.insert(self.last_number, kept);
            }
        }
        let Some(number) = self.numbers.get(id).copied() else { return };
        if let Some(kept) = self.nodes.get_mut(&number) {
            kept.node.apply(changes);
            changes.iter().for_each(|change| kept.change_items(change));
        }
        if changes.iter().any(|change| matches!(change, Change::Deleted)) {
            self.nodes.remove(&number);
            self.numbers.remove(id);
        }
    }
}

impl Kept {
    fn change_items(&mut self, change: &Change) {
        match change {
            Change::Published(item) => {
                self.retract(&item.id);
                let place = (item.place.seq, item.index);
                self.places.insert(item.id.clone(), place);
                self.items.insert(place, (**item).clone());
            }
            Change::Retracted(id) => self.retract(id),
            Change::Trimmed { keep } => {
                while self.items.len() > *keep as usize {
                    if let Some((_, item)) = self.items.pop_first() {
                        self.places.remove(&item.id);
                    }
                }
            }
            Change::Purged => {
                self.items.clear();
                self.places.clear();
            }
            Change::Created(_)
            | Change::Configured(_)
            | Change::Deleted
            | Change::Affiliated(..)
            | Change::Subscribed(_)
            | Change::Unsubscribed(_) => {}
        }
    }

    fn retract(&mut self, id: &ItemId) {
        if let Some(place) = self.places.remove(id) {
            self.items.remove(&place);
        }
    }

    fn select(&self, selection: &Selection) -> Vec<Item> {
        match selection {
            Selection::Ids(ids) => {
                let mut places: Vec<_> = ids.iter().filter_map(|id| self.places.get(id)).collect();
                places.sort_unstable();
                places.dedup();
                places.iter().filter_map(|place| self.items.get(place).cloned()).collect()
            }
            Selection::Recent(n) => {
                let skipped = self.items.len().saturating_sub(*n as usize);
                self.items.values().skip(skipped).cloned().collect()
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(
        &self,
        node: &NodeId,
        changes: &Changes,
        _: Option<&Notification>,
    ) -> Result<Option<Debt>, StoreError> {
        self.shelf().commit(node, changes);
        Ok(None)
    }

    async fn owed(&self, _: Option<&NodeId>) -> Result<Vec<Owed>, StoreError> {
        Ok(Vec::new())
    }

    async fn forget(&self, _: Told) -> Result<(), StoreError> {
        Ok(())
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        Ok(self.shelf().get(id).map(|kept| kept.node.clone()))
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.shelf().nodes.len() as u64)
    }

    async fn nodes(
        &self,
        after: Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, NodeSummary)>, StoreError> {
        let summary = |(number, kept): (&u64, &Kept)| {
            let summary = NodeSummary {
                node: kept.node.id.clone(),
                title: kept.node.config.title.clone(),
                access_model: kept.node.config.access_model,
            };
            (Cursor(*number), summary)
        };
        Ok(self.shelf().nodes.range(after.0 + 1..).take(limit).map(summary).collect())
    }

    async fn items(
        &self,
        node: &NodeId,
        selection: &Selection,
        max_bytes: usize,
    ) -> Result<Vec<Item>, StoreError> {
        let shelf = self.shelf();
        let selected = shelf.get(node).map(|kept| kept.select(selection)).unwrap_or_default();
        Ok(newest_that_fit(selected, max_bytes))
    }

    async fn item_ids(&self, node: &NodeId, max_bytes: usize) -> Result<Vec<ItemId>, StoreError> {
        let shelf = self.shelf();
        let items = shelf.get(node).into_iter().flat_map(|kept| kept.items.values().rev());
        ids_that_fit(items.map(|item| Ok(item.id.clone())), max_bytes)
    }

    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Vec<(NodeId, Affiliation)>, StoreError> {
        let shelf = self.shelf();
        let nodes = shelf.nodes.values().map(|kept| &kept.node);
        Ok(nodes
            .map(|node| (node.id.clone(), node.affiliation_of(entity)))
            .filter(|(_, affiliation)| *affiliation != Affiliation::None)
            .collect())
    }

    async fn subscriptions_of(&self, entity: &BareJid) -> Result<Vec<(NodeId, Jid)>, StoreError> {
        let shelf = self.shelf();
        let nodes = shelf.nodes.values().map(|kept| &kept.node);
        Ok(nodes
            .flat_map(|node| {
                node.subscriptions_of(entity).map(|jid| (node.id.clone(), jid.clone()))
            })
            .collect())
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn close(&self) {}
}
