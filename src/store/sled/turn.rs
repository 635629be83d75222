//! One commit in the making: the rows that it writes, and reads that see them.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use sled::Tree;

use crate::{
    pubsub::{Affiliation, Change, Changes, Item, NodeId},
    store::StoreError,
};

use super::{
    failed,
    keys::{self, Number, Spot},
    record::{
        self, AffiliationName, AffiliationRecord, Content, Counters, ItemRecord, NodeRecord,
        PayloadRecord, SubscriptionRecord, damaged,
    },
};

/// The largest row, key and value together. Rows above it would make sled write blob files.
const MAX_ROW_BYTES: usize = 4096;
/// The longest payload that stands in its item's row, and the length of a chunk.
const CHUNK_BYTES: usize = 900;

/// The rows that one commit writes (`None` removes), over those that are there.
pub(super) struct Turn<'a> {
    tree: &'a Tree,
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self { tree, rows: BTreeMap::new() }
    }

    /// Adds the rows to a batch.
    pub(super) fn write_to(self, batch: &mut sled::Batch) {
        for (key, value) in self.rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
    }

    /// Carries out the changes of one node. `next` is the number that a new node gets.
    pub(super) fn change(
        &mut self,
        id: &NodeId,
        changes: &Changes,
        next: &mut Number,
    ) -> Result<(), StoreError> {
        let mut number = self.get::<Number>(&keys::name(id))?;
        for change in changes.iter() {
            if let Change::Created(node) = change {
                self.put(&keys::name(id), &*next)?;
                self.put(&keys::node(*next), &NodeRecord::of(node))?;
                number = Some(*next);
                *next += 1;
            }
            let number = number.ok_or_else(|| failed("a change at no node"))?;
            self.change_one(id, number, change)?;
        }
        let deleted = changes.iter().any(|change| matches!(change, Change::Deleted));
        if let Some(number) = number.filter(|_| !deleted) {
            let mut counters = self.counters(number)?;
            counters.seq = changes.seq();
            self.put(&keys::counters(number), &counters)?;
        }
        Ok(())
    }

    fn change_one(&mut self, id: &NodeId, node: Number, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Created(_) => Ok(()),
            Change::Configured(config) => {
                let key = keys::node(node);
                let mut record = self.get::<NodeRecord>(&key)?.ok_or_else(|| damaged(&key))?;
                record.set_config(config);
                self.put(&key, &record)
            }
            Change::Deleted => self.delete(id, node),
            Change::Affiliated(entity, affiliation) => {
                let (row, back) = (
                    keys::affiliation(node, entity.as_str()),
                    keys::affiliation_of(entity.as_str(), node),
                );
                match AffiliationName::of(*affiliation) {
                    Some(name) => {
                        self.put(&row, &AffiliationRecord::of(entity, name))?;
                        self.put(&back, &name)
                    }
                    None => {
                        self.remove(row);
                        self.remove(back);
                        Ok(())
                    }
                }
            }
            Change::Subscribed(jid) => {
                self.put(&keys::subscription(node, jid.as_str()), &SubscriptionRecord::of(jid))?;
                let bare = jid.to_bare();
                self.put(&keys::subscription_of(bare.as_str(), node, jid.as_str()), &())
            }
            Change::Unsubscribed(jid) => {
                self.remove(keys::subscription(node, jid.as_str()));
                let bare = jid.to_bare();
                self.remove(keys::subscription_of(bare.as_str(), node, jid.as_str()));
                Ok(())
            }
            Change::Published(item) => self.publish(node, item),
            Change::Retracted(item) => {
                match self.get::<Spot>(&keys::item_name(node, item.as_str()))? {
                    Some(spot) => self.remove_item(node, spot),
                    None => Ok(()),
                }
            }
            Change::Trimmed { keep } => self.trim(node, u64::from(*keep)),
            Change::Purged => {
                for table in keys::ITEM_TABLES {
                    self.remove_all(&keys::of_node(*table, node))?;
                }
                let mut counters = self.counters(node)?;
                counters.items = 0;
                self.put(&keys::counters(node), &counters)
            }
        }
    }

    fn publish(&mut self, node: Number, item: &Item) -> Result<(), StoreError> {
        let name = keys::item_name(node, item.id.as_str());
        if let Some(spot) = self.get::<Spot>(&name)? {
            self.remove_item(node, spot)?;
        }
        let spot = (item.place.seq, item.index);
        let content = match &item.payload {
            None => Content::None,
            Some(payload) if payload.xml().len() + payload.namespace().len() <= CHUNK_BYTES => {
                Content::Here(PayloadRecord::of(payload))
            }
            Some(payload) => {
                let bytes = postcard::to_stdvec(&PayloadRecord::of(payload))
                    .map_err(|error| failed(&error))?;
                let mut chunks = 0;
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    self.put(&keys::chunk(node, spot, chunks), &chunk)?;
                    chunks += 1;
                }
                Content::Chunks(chunks)
            }
        };
        self.put(&keys::item(node, spot), &ItemRecord::of(item, content))?;
        self.put(&name, &spot)?;
        let mut counters = self.counters(node)?;
        counters.items += 1;
        self.put(&keys::counters(node), &counters)
    }

    fn remove_item(&mut self, node: Number, spot: Spot) -> Result<(), StoreError> {
        let key = keys::item(node, spot);
        let record = self.get::<ItemRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        if let Content::Chunks(chunks) = record.content {
            (0..chunks).for_each(|chunk| self.remove(keys::chunk(node, spot, chunk)));
        }
        self.remove(keys::item_name(node, record.id()));
        self.remove(key);
        let mut counters = self.counters(node)?;
        counters.items = counters.items.saturating_sub(1);
        self.put(&keys::counters(node), &counters)
    }

    fn trim(&mut self, node: Number, keep: u64) -> Result<(), StoreError> {
        let excess = self.counters(node)?.items.saturating_sub(keep);
        let excess = usize::try_from(excess).unwrap_or(usize::MAX);
        if excess == 0 {
            return Ok(());
        }
        for key in self.first(&keys::of_node(b'i', node), excess)? {
            let spot = keys::spot(&key).ok_or_else(|| damaged(&key))?;
            self.remove_item(node, spot)?;
        }
        Ok(())
    }

    fn delete(&mut self, id: &NodeId, node: Number) -> Result<(), StoreError> {
        for key in self.first(&keys::of_node(b'a', node), usize::MAX)? {
            let record = self.get::<AffiliationRecord>(&key)?.ok_or_else(|| damaged(&key))?;
            self.remove(keys::affiliation_of(record.entity(&key)?.as_str(), node));
        }
        for key in self.first(&keys::of_node(b's', node), usize::MAX)? {
            let record = self.get::<SubscriptionRecord>(&key)?.ok_or_else(|| damaged(&key))?;
            let jid = record.jid(&key)?;
            self.remove(keys::subscription_of(jid.to_bare().as_str(), node, jid.as_str()));
        }
        for table in keys::TABLES_OF_A_NODE {
            self.remove_all(&keys::of_node(*table, node))?;
        }
        self.remove(keys::name(id));
        Ok(())
    }

    fn counters(&self, node: Number) -> Result<Counters, StoreError> {
        Ok(self.get(&keys::counters(node))?.unwrap_or_default())
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.rows.get(key) {
            Some(Some(value)) => record::decode(key, value).map(Some),
            Some(None) => Ok(None),
            None => match self.tree.get(key).map_err(|error| failed(&error))? {
                Some(value) => record::decode(key, &value).map(Some),
                None => Ok(None),
            },
        }
    }

    fn put<T: Serialize>(&mut self, key: &[u8], record: &T) -> Result<(), StoreError> {
        let value = record::encode(key, record)?;
        if key.len() + value.len() > MAX_ROW_BYTES {
            return Err(failed(&format!("a row of {} bytes", key.len() + value.len())));
        }
        self.rows.insert(key.to_vec(), Some(value));
        Ok(())
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.rows.insert(key, None);
    }

    fn remove_all(&mut self, prefix: &[u8]) -> Result<(), StoreError> {
        let keys = self.first(prefix, usize::MAX)?;
        keys.into_iter().for_each(|key| self.remove(key));
        Ok(())
    }

    /// The first keys with a prefix. Those that this turn adds come after those that are there,
    /// which holds for items: they are added at the end.
    fn first(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        for row in self.tree.scan_prefix(prefix).keys() {
            if keys.len() == limit {
                return Ok(keys);
            }
            let key = row.map_err(|error| failed(&error))?;
            if !self.rows.contains_key(key.as_ref()) {
                keys.push(key.to_vec());
            }
        }
        let added =
            self.rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        keys.extend(added.filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()));
        keys.truncate(limit);
        Ok(keys)
    }
}

/// The affiliation in a row of the table `A`.
pub(super) fn affiliation_in(key: &[u8], value: &[u8]) -> Result<Affiliation, StoreError> {
    record::decode::<AffiliationName>(key, value).map(AffiliationName::to_affiliation)
}
