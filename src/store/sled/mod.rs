//! A store in a folder, on sled 0.34. Durable by [`committer`]'s recipe; `docs/DATA-MODEL.md` has the
//! layout.

mod committer;
mod keys;
mod record;
mod turn;

use std::{
    fmt::Display,
    fs::File,
    io::Write,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
};

use async_trait::async_trait;
use jid::{BareJid, Jid};
use serde::de::DeserializeOwned;
use sled::Tree;
use tokio::sync::{mpsc, oneshot};

use crate::pubsub::{
    Affiliation, Changes, Epoch, Item, ItemId, Node, NodeId,
    op::{discover::NodeSummary, retrieve::Selection},
};

use self::{
    committer::{Commit, Committer},
    keys::{Number, Spot},
    record::{
        AffiliationRecord, Content, Counters, ItemRecord, NodeRecord, SubscriptionRecord, damaged,
    },
};
use super::{Cursor, Store, StoreError, ids_that_fit};

/// Memory for pages that sled keeps at hand, in bytes.
const CACHE_BYTES: u64 = 256 * 1024 * 1024;

/// The file that says that there is a store: where it is and `db` is not, something was lost.
const MARKER: &str = "gjallar.store";

/// A store in a folder of its own.
#[derive(Debug)]
pub struct SledStore {
    reader: Reader,
    writer: Mutex<Option<(mpsc::Sender<Commit>, JoinHandle<()>)>>,
}

impl SledStore {
    /// Opens the store in a folder, which is created if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it, [`StoreError::Version`] if another version
    /// wrote it, [`StoreError::Damaged`] if it is not what was written.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        let marker = directory.join(MARKER);
        if marker.exists() && !directory.join("db").exists() {
            return Err(StoreError::Damaged("the file db is missing".into()));
        }
        let config = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES);
        let db = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| StoreError::Damaged("the files cannot be opened".into()))?
            .map_err(|error| opening(&error))?;
        let tree: Tree = (*db).clone();
        let reader = Reader { tree: tree.clone() };
        reader.check_version()?;
        let next = reader.last_number()? + 1;
        mark(directory, &marker).map_err(|error| failed(&error))?;
        let writer = Committer::start(tree, directory, next)?;
        Ok(Self { reader, writer: Mutex::new(Some(writer)) })
    }

    /// Ends the committer, which finishes what it was sent.
    fn end(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = writer {
            drop(sender);
            // If it panicked, there is nothing more to wait for.
            let _ = thread.join();
        }
    }

    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    {
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || read(&reader));
        read.await.map_err(|error| failed(&error))?
    }
}

/// Leaves a mark that there is a store, and makes sure that the folder's entries are on disk.
fn mark(directory: &Path, marker: &Path) -> std::io::Result<()> {
    if !marker.exists() {
        let mut file = File::create(marker)?;
        file.write_all(b"gjallar keeps its store here\n")?;
        file.sync_all()?;
    }
    File::open(directory)?.sync_all()?;
    match directory.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Any failure that only an operator can mend.
fn failed(reason: &(impl Display + ?Sized)) -> StoreError {
    StoreError::Failed(reason.to_string())
}

fn opening(error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => {
            StoreError::Locked
        }
        sled::Error::Corruption { .. } => StoreError::Damaged(error.to_string()),
        _ => failed(error),
    }
}

/// The reading half.
#[derive(Clone, Debug)]
struct Reader {
    tree: Tree,
}

impl Reader {
    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.tree.get(key).map_err(|error| failed(&error))? {
            Some(value) => record::decode(key, &value).map(Some),
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> + use<> {
        self.tree.scan_prefix(prefix).map(|row| row.map_err(|error| failed(&error)))
    }

    /// Refuses a store of another version; marks a new one.
    fn check_version(&self) -> Result<(), StoreError> {
        match self.get::<u8>(keys::VERSION)? {
            Some(record::VERSION) => Ok(()),
            Some(found) => Err(StoreError::Version { found, expected: record::VERSION }),
            None if self.tree.is_empty() => {
                let value = record::encode(keys::VERSION, &record::VERSION)?;
                self.tree.insert(keys::VERSION, value).map_err(|error| failed(&error))?;
                Ok(())
            }
            None => Err(StoreError::Damaged("not a store of this service".into())),
        }
    }

    fn last_number(&self) -> Result<Number, StoreError> {
        match self.tree.scan_prefix(b"n").next_back() {
            Some(row) => {
                let (key, _) = row.map_err(|error| failed(&error))?;
                keys::number_at(&key, 1).ok_or_else(|| damaged(&key))
            }
            None => Ok(0),
        }
    }

    fn number(&self, id: &NodeId) -> Result<Option<Number>, StoreError> {
        self.get(&keys::name(id))
    }

    fn record(&self, number: Number) -> Result<(Vec<u8>, NodeRecord), StoreError> {
        let key = keys::node(number);
        let record = self.get::<NodeRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        Ok((key, record))
    }

    fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(None) };
        let (key, record) = self.record(number)?;
        if record.name() != id.as_str() {
            return Err(damaged(&key));
        }
        let mut node = record.to_node(&key)?;
        node.seq = self.get::<Counters>(&keys::counters(number))?.unwrap_or_default().seq;
        for row in self.scan(&keys::of_node(b'a', number)) {
            let (key, value) = row?;
            let record: AffiliationRecord = record::decode(&key, &value)?;
            node.load_affiliation(record.entity(&key)?, record.affiliation());
        }
        for row in self.scan(&keys::of_node(b's', number)) {
            let (key, value) = row?;
            let record: SubscriptionRecord = record::decode(&key, &value)?;
            node.load_subscription(record.jid(&key)?);
        }
        Ok(Some(node))
    }

    fn count(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        for row in self.scan(b"n") {
            let (key, value) = row?;
            record::decode::<NodeRecord>(&key, &value)?.to_node(&key)?;
            count += 1;
        }
        Ok(count)
    }

    fn nodes(&self, after: Cursor, limit: usize) -> Result<Vec<(Cursor, NodeSummary)>, StoreError> {
        let mut nodes = Vec::new();
        for row in self.tree.range(keys::node(after.0 + 1)..b"o".to_vec()).take(limit) {
            let (key, value) = row.map_err(|error| failed(&error))?;
            let number = keys::number_at(&key, 1).ok_or_else(|| damaged(&key))?;
            let node = record::decode::<NodeRecord>(&key, &value)?.to_node(&key)?;
            let summary = NodeSummary {
                node: node.id,
                title: node.config.title,
                access_model: node.config.access_model,
            };
            nodes.push((Cursor(number), summary));
        }
        Ok(nodes)
    }

    fn items(
        &self,
        id: &NodeId,
        selection: &Selection,
        max_bytes: usize,
    ) -> Result<Vec<Item>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(Vec::new()) };
        let epoch = self.record(number)?.1.to_node(&[])?.epoch;
        let mut newest_first = Vec::new();
        let mut total = 0;
        for spot in self.spots(number, selection)? {
            let item = self.item(number, epoch, spot?)?;
            total += item.size();
            if total > max_bytes && !newest_first.is_empty() {
                break;
            }
            newest_first.push(item);
        }
        newest_first.reverse();
        Ok(newest_first)
    }

    fn item_ids(&self, id: &NodeId, max_bytes: usize) -> Result<Vec<ItemId>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(Vec::new()) };
        let rows = self.tree.scan_prefix(keys::of_node(b'i', number)).rev();
        let ids = rows.map(|row| {
            let (key, value) = row.map_err(|error| failed(&error))?;
            let record: ItemRecord = record::decode(&key, &value)?;
            ItemId::parse(record.id()).map_err(|_| damaged(&key))
        });
        ids_that_fit(ids, max_bytes)
    }

    /// Where the selected items are, newest first.
    fn spots(
        &self,
        node: Number,
        selection: &Selection,
    ) -> Result<Box<dyn Iterator<Item = Result<Spot, StoreError>>>, StoreError> {
        match selection {
            Selection::Ids(ids) => {
                let mut spots = Vec::new();
                for id in ids {
                    spots.extend(self.get::<Spot>(&keys::item_name(node, id.as_str()))?);
                }
                spots.sort_unstable();
                spots.dedup();
                Ok(Box::new(spots.into_iter().rev().map(Ok)))
            }
            Selection::Recent(n) => {
                let rows = self.tree.scan_prefix(keys::of_node(b'i', node)).keys().rev();
                Ok(Box::new(rows.take(*n as usize).map(|row| {
                    let key = row.map_err(|error| failed(&error))?;
                    keys::spot(&key).ok_or_else(|| damaged(&key))
                })))
            }
        }
    }

    fn item(&self, node: Number, epoch: Epoch, spot: Spot) -> Result<Item, StoreError> {
        let key = keys::item(node, spot);
        let mut record = self.get::<ItemRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        let payload = match std::mem::replace(&mut record.content, Content::None) {
            Content::None => None,
            Content::Here(payload) => Some(payload),
            Content::Chunks(chunks) => {
                let mut bytes = Vec::new();
                for chunk in 0..chunks {
                    let key = keys::chunk(node, spot, chunk);
                    bytes.extend(self.get::<Vec<u8>>(&key)?.ok_or_else(|| damaged(&key))?);
                }
                Some(postcard::from_bytes(&bytes).map_err(|_| damaged(&key))?)
            }
        };
        record.to_item(&key, epoch, spot, payload)
    }

    fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Vec<(NodeId, Affiliation)>, StoreError> {
        let mut affiliations = Vec::new();
        for row in self.scan(&keys::affiliations_of(entity.as_str())) {
            let (key, value) = row?;
            let number = keys::number_at(&key, 21).ok_or_else(|| damaged(&key))?;
            let affiliation = turn::affiliation_in(&key, &value)?;
            if let Some(node) = self.pointed_to::<NodeRecord>(&key, &keys::node(number))? {
                affiliations.push((name(&key, &node)?, affiliation));
            }
        }
        Ok(affiliations)
    }

    fn subscriptions_of(&self, entity: &BareJid) -> Result<Vec<(NodeId, Jid)>, StoreError> {
        let mut subscriptions = Vec::new();
        for row in self.scan(&keys::subscriptions_of(entity.as_str())) {
            let (key, _) = row?;
            let (number, row) =
                keys::subscription_pointed_to(&key).ok_or_else(|| damaged(&key))?;
            let node = self.pointed_to::<NodeRecord>(&key, &keys::node(number))?;
            let record = self.pointed_to::<SubscriptionRecord>(&key, &row)?;
            if let (Some(node), Some(record)) = (node, record) {
                subscriptions.push((name(&key, &node)?, record.jid(&row)?));
            }
        }
        Ok(subscriptions)
    }

    /// The row that a pointer leads to; nothing if both went since the pointer was read.
    fn pointed_to<T: DeserializeOwned>(
        &self,
        pointer: &[u8],
        row: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let record = self.get(row)?;
        if record.is_none() && self.tree.contains_key(pointer).map_err(|error| failed(&error))? {
            return Err(damaged(row));
        }
        Ok(record)
    }
}

fn name(key: &[u8], record: &NodeRecord) -> Result<NodeId, StoreError> {
    NodeId::parse(record.name()).map_err(|_| damaged(key))
}

#[async_trait]
impl Store for SledStore {
    async fn commit(&self, node: &NodeId, changes: &Changes) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        let commit = Commit { node: node.clone(), changes: changes.clone(), done };
        let sender = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.as_ref().map(|(sender, _)| sender.clone())
        };
        let sender = sender.ok_or_else(|| failed("the store is closed"))?;
        sender.send(commit).await.map_err(|_| failed("the committer has ended"))?;
        result.await.map_err(|_| failed("the committer has ended"))?
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let id = id.clone();
        self.read(move |reader| reader.node(&id)).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.read(Reader::count).await
    }

    async fn nodes(
        &self,
        after: Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, NodeSummary)>, StoreError> {
        self.read(move |reader| reader.nodes(after, limit)).await
    }

    async fn items(
        &self,
        node: &NodeId,
        selection: &Selection,
        max_bytes: usize,
    ) -> Result<Vec<Item>, StoreError> {
        let (node, selection) = (node.clone(), selection.clone());
        self.read(move |reader| reader.items(&node, &selection, max_bytes)).await
    }

    async fn item_ids(&self, node: &NodeId, max_bytes: usize) -> Result<Vec<ItemId>, StoreError> {
        let node = node.clone();
        self.read(move |reader| reader.item_ids(&node, max_bytes)).await
    }

    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Vec<(NodeId, Affiliation)>, StoreError> {
        let entity = entity.clone();
        self.read(move |reader| reader.affiliations_of(&entity)).await
    }

    async fn subscriptions_of(&self, entity: &BareJid) -> Result<Vec<(NodeId, Jid)>, StoreError> {
        let entity = entity.clone();
        self.read(move |reader| reader.subscriptions_of(&entity)).await
    }

    async fn close(&self) {
        // A commit that is being sent holds a sender of its own, so nothing is lost.
        self.end();
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.end();
    }
}
