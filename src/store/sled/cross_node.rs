//! Reads over many nodes. Reads with a [`Partial`] result continue past damaged nodes and report them.

use std::collections::{BTreeSet, HashMap};

use jid::{BareJid, Jid};

use crate::store::{self, CorruptRecord, Partial, StoreError};
use gjallar_pubsub::{
    Affiliation, FormerNode, NodeId, PageRequest, Subscription, Timestamp,
    op::discover::NodeSummary,
};

use super::{
    keys::{self, NodeNumber},
    record::{self, FormerRecord, NodeRecord, RedirectRecord, StoredRecord, damaged},
    sled_failed,
    tree_reader::{READ_ATTEMPTS, TreeReader, name},
    write_tx::{
        self,
        subscriptions::{SubscriptionPointer, SubscriptionRecord, read_part},
    },
};

impl TreeReader {
    pub(super) fn creators(&self) -> Result<HashMap<BareJid, u64>, StoreError> {
        let mut creators = HashMap::<_, (_, u64)>::new();
        for row in self.scan(b"n") {
            let (key, value) = row?;
            let creator = record::decode::<NodeRecord>(&key, &value)?.into_creator();
            creators.entry(creator).or_insert((key, 0)).1 += 1;
        }
        let of_entity = |(creator, (key, nodes)): (String, (sled::IVec, u64))| {
            Ok((BareJid::new(&creator).map_err(|_| damaged(&key))?, nodes))
        };
        creators.into_iter().map(of_entity).collect()
    }

    /// Returns the nodes with timers or with subscriptions that depend on presence.
    pub(super) fn nodes_with_timers(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut numbers = BTreeSet::new();
        for row in self.scan(b"l") {
            let (key, _) = row?;
            numbers.insert(keys::node_at(&key, 1).ok_or_else(|| damaged(&key))?);
        }
        let mut nodes = Vec::new();
        for row in self.scan(b"n") {
            let (key, value) = row?;
            let record = record::decode::<NodeRecord>(&key, &value)?;
            let number = keys::node_at(&key, 1).ok_or_else(|| damaged(&key))?;
            if record.needs_timers() || numbers.contains(&number) {
                nodes.push(name(&key, &record)?);
            }
        }
        Ok(nodes)
    }

    pub(super) fn nodes(
        &self,
        page: &PageRequest<NodeNumber>,
    ) -> Result<Partial<Vec<(NodeNumber, NodeSummary)>>, StoreError> {
        let (numbers, skipped) = store::numbers(page);
        let rows = self.tree.range(keys::node(numbers.start)..keys::node(numbers.end));
        let rows: &mut dyn Iterator<Item = _> = match page.is_backward() {
            true => &mut rows.rev(),
            false => &mut rows.skip(skipped),
        };
        let mut nodes = Partial::<Vec<_>>::default();
        while nodes.found.len() < page.max
            && let Some(row) = rows.next()
        {
            let (key, value) = row.map_err(|error| sled_failed(&error))?;
            let number = keys::node_at(&key, 1).ok_or_else(|| damaged(&key))?;
            let node = summary(number, &key, &value).map(Some);
            nodes.found.extend(self.collect_partial(number, &mut nodes.damaged, node)?);
        }
        if page.is_backward() {
            nodes.found.reverse();
        }
        Ok(nodes)
    }

    pub(super) fn summary(
        &self,
        id: &NodeId,
    ) -> Result<Option<(NodeNumber, NodeSummary)>, StoreError> {
        let Some(number) = self.get::<NodeNumber>(&keys::name(id))? else { return Ok(None) };
        let key = keys::node(number);
        let row = self.tree.get(&key).map_err(|error| sled_failed(&error))?;
        row.map(|value| summary(number, &key, &value)).transpose()
    }

    pub(super) fn former(&self, id: &NodeId) -> Result<Option<FormerNode>, StoreError> {
        let redirect = self.get::<RedirectRecord>(&keys::redirect(id))?;
        let redirect = redirect.map(|redirect| redirect.uri);
        Ok(match self.get::<FormerRecord>(&keys::former(id))? {
            Some(former) => Some(former.to_former(redirect)),
            // Nodes deleted before layout 10 have no row in the table `F`.
            None => redirect.map(|uri| FormerNode {
                redirect: Some(uri),
                deleted: Timestamp(0),
                owners: Vec::new(),
                account: None,
            }),
        })
    }

    pub(super) fn former_nodes(&self) -> Result<Vec<(NodeId, FormerNode)>, StoreError> {
        let former = |row: Result<(sled::IVec, sled::IVec), StoreError>| {
            let (key, value) = row?;
            let name = record::decode::<String>(&key, &value)?;
            let id = NodeId::parse(&name).map_err(|_| damaged(&key))?;
            let former = self.former(&id)?.ok_or_else(|| damaged(&key))?;
            let has_moved = key.first() == Some(&b'm');
            match former.redirect.is_some() == has_moved {
                true => Ok((id, former)),
                false => Err(damaged(&key)),
            }
        };
        self.scan(b"m").chain(self.scan(b"f")).map(former).collect()
    }

    pub(super) fn presence_refusals(&self) -> Result<Vec<BareJid>, StoreError> {
        let entity = |row: Result<(sled::IVec, sled::IVec), StoreError>| {
            let (key, value) = row?;
            let entity = record::decode::<String>(&key, &value)?;
            BareJid::new(&entity).map_err(|_| damaged(&key))
        };
        self.scan(b"r").map(entity).collect()
    }

    pub(super) fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Affiliation)>>, StoreError> {
        let mut affiliations = Partial::<Vec<_>>::default();
        for row in self.scan(&keys::affiliations_of(entity.as_str())) {
            let (key, value) = row?;
            let number = keys::node_at(&key, 21).ok_or_else(|| damaged(&key))?;
            let affiliation = || {
                let affiliation = write_tx::affiliation_in(&key, &value)?;
                let node = self.pointed_to::<NodeRecord>(&key, number, &keys::node(number))?;
                node.map(|node| Ok((name(&key, &node)?, affiliation))).transpose()
            };
            let affiliation =
                self.collect_partial(number, &mut affiliations.damaged, affiliation())?;
            affiliations.found.extend(affiliation);
        }
        Ok(affiliations)
    }

    pub(super) fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Subscription)>>, StoreError> {
        let mut subscriptions = Partial::<Vec<_>>::default();
        for row in self.scan(&keys::subscriptions_of(entity.as_str())) {
            let (key, value) = row?;
            let (number, hash) =
                keys::subscription_pointed_to(&key).ok_or_else(|| damaged(&key))?;
            let subscription = || {
                record::decode::<SubscriptionPointer>(&key, &value)?;
                let node = self.pointed_to::<NodeRecord>(&key, number, &keys::node(number))?;
                let found = node.zip(self.subscriptions_at(&key, number, hash)?);
                found.map(|(node, all)| Ok((name(&key, &node)?, all))).transpose()
            };
            let found = self.collect_partial(number, &mut subscriptions.damaged, subscription())?;
            if let Some((node, all)) = found {
                subscriptions
                    .found
                    .extend(all.into_iter().map(|subscription| (node.clone(), subscription)));
            }
        }
        Ok(subscriptions)
    }

    pub(super) fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<Partial<usize>, StoreError> {
        let is_there = |key: &[u8]| self.tree.contains_key(key).map_err(|e| sled_failed(&e));
        let some_are_dead = self.scan(b"d").next().transpose()?.is_some();
        let mut count = Partial::<usize>::default();
        for row in self.scan(&keys::subscriptions_of(entity.as_str())) {
            if count.found == up_to {
                break;
            }
            let (key, value) = row?;
            let number = keys::node_at(&key, 21).ok_or_else(|| damaged(&key))?;
            let place = record::decode::<SubscriptionPointer>(&key, &value);
            let is_own = place.map(|place| Some(place.is_own));
            let is_own = self.collect_partial(number, &mut count.damaged, is_own)?;
            let is_dead = some_are_dead && is_there(&keys::tombstone(number))?;
            count.found += usize::from(is_own.unwrap_or(true) && !is_dead);
        }
        Ok(count)
    }

    pub(super) fn subscribed_aliases(&self) -> Result<BTreeSet<BareJid>, StoreError> {
        let mut aliases = BTreeSet::new();
        for row in self.scan(b"s") {
            let (key, value) = row?;
            let part = record::decode::<Vec<u8>>(&key, &value);
            let part = part.and_then(|part| read_part(&key, &part)).unwrap_or_default();
            let entities = part.iter().filter_map(|record| record.jid(&key).ok());
            aliases.extend(entities.map(Jid::into_bare).filter(BareJid::is_alias));
        }
        Ok(aliases)
    }

    /// Returns the read result `found`. If `found` reports a damaged record, adds this record to `all` and returns
    /// `None`.
    fn collect_partial<T>(
        &self,
        number: NodeNumber,
        all: &mut Vec<CorruptRecord>,
        found: Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let Err(StoreError::Corrupt(record)) = found else { return found };
        let node = self.record(number).and_then(|(key, node)| name(&key, &node)).ok();
        all.push(CorruptRecord { node, record });
        Ok(None)
    }

    /// Returns the subscriptions that an index row points to. Returns `None` if the node is deleted, or if both rows
    /// were removed after the caller read the index row.
    fn subscriptions_at(
        &self,
        pointer: &[u8],
        node: NodeNumber,
        hash: &[u8],
    ) -> Result<Option<Vec<Subscription>>, StoreError> {
        let record = self.subscription_at(pointer, node, hash)?;
        record.map(|(key, record)| record.subscriptions(&key)).transpose()
    }

    /// Returns the record of a JID's subscriptions at a node. The node may also be a deleted node with pending log
    /// entries.
    pub(super) fn subscription(
        &self,
        jid: &Jid,
        node: NodeNumber,
    ) -> Result<Option<SubscriptionRecord>, StoreError> {
        let (pointer, hash) = (keys::subscription_of(jid, node), keys::hash(jid.as_str()));
        Ok(self.subscription_at(&pointer, node, &hash)?.map(|(_, record)| record))
    }

    fn subscription_at(
        &self,
        pointer: &[u8],
        node: NodeNumber,
        hash: &[u8],
    ) -> Result<Option<(Vec<u8>, SubscriptionRecord)>, StoreError> {
        let is_there = |key: &[u8]| self.tree.contains_key(key).map_err(|e| sled_failed(&e));
        // The subscription may be removed and created again in another part between two reads.
        for _ in 0..READ_ATTEMPTS {
            let Some(place) = self.get::<SubscriptionPointer>(pointer)? else { return Ok(None) };
            let key = keys::subscriptions(node, place.part);
            let part = self.get::<Vec<u8>>(&key)?.unwrap_or_default();
            let found = read_part(&key, &part)?.into_iter().find(|record| record.has_hash(hash));
            if let Some(record) = found {
                return Ok(Some((key, record)));
            }
            if is_there(&keys::tombstone(node))? {
                return Ok(None);
            }
        }
        Err(damaged(pointer))
    }

    /// Returns the row of a node that an index row points to. Returns `None` if the node is deleted, or if both rows
    /// were removed after the caller read the index row.
    fn pointed_to<T: StoredRecord>(
        &self,
        pointer: &[u8],
        node: NodeNumber,
        row: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let is_there = |key: &[u8]| self.tree.contains_key(key).map_err(|e| sled_failed(&e));
        // Both rows may be removed and written again between two reads.
        for _ in 0..READ_ATTEMPTS {
            let record = self.get(row)?;
            // The order matters: the index rows of a deleted node are removed before its `d` row.
            if record.is_some() || is_there(&keys::tombstone(node))? || !is_there(pointer)? {
                return Ok(record);
            }
        }
        Err(damaged(row))
    }
}

/// Returns a node as an entry of the list of nodes.
fn summary(
    number: NodeNumber,
    key: &[u8],
    value: &[u8],
) -> Result<(NodeNumber, NodeSummary), StoreError> {
    let node = record::decode::<NodeRecord>(key, value)?.to_node(key)?;
    let summary = NodeSummary {
        node: node.id,
        epoch: node.epoch,
        title: node.config.title,
        access_model: node.config.access_model,
        publish_model: node.config.publish_model,
        r#type: node.config.r#type,
    };
    Ok((number, summary))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Commit, CommitChain, SledStore, Store};
    use gjallar_pubsub::{Epoch, Limits, Node, NodeConfig, PageBound, import_changes};

    /// A page of nodes skips damaged records and takes further nodes instead, wherever the damaged records are.
    #[tokio::test]
    async fn a_page_of_nodes_is_full_where_some_are_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path()).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            let node = NodeId::parse(name).unwrap();
            let config = NodeConfig::initial(&Limits::default());
            let creator = BareJid::new("owner@x").unwrap();
            let created = Node::new(node.clone(), Epoch(1), config, creator, Timestamp(0));
            let commit = Commit {
                node,
                changes: Arc::new(import_changes::created(created)),
                notifications: Vec::new(),
                revoked: Arc::default(),
                chain: CommitChain::default(),
            };
            store.commit_now(commit).await.unwrap();
        }
        let tree = store.reader.tree_reader().unwrap().tree;
        for number in [1, 3, 4] {
            tree.insert(keys::node(NodeNumber(number)), b"damaged").unwrap();
        }
        let page = async |max, edge| {
            let page = store.nodes(&PageRequest { max, edge }).await.unwrap();
            let names = page.found.iter().map(|(_, node)| node.node.as_str());
            (names.collect::<Vec<_>>().concat(), page.damaged.len())
        };
        let found = |names: &str, damaged| (names.to_owned(), damaged);
        assert_eq!(page(1, PageBound::At(0)).await, found("b", 1));
        assert_eq!(page(1, PageBound::After(NodeNumber(2))).await, found("e", 2));
        assert_eq!(page(2, PageBound::Last).await, found("be", 2));
        assert_eq!(page(9, PageBound::At(0)).await, found("be", 3));
    }
}
