//! A store in a folder, on sled 0.34. Durable by [`committer`]'s recipe; `docs/DATA-MODEL.md` has the
//! layout.

mod committer;
mod keys;
mod reader;
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
use sled::Tree;
use tokio::sync::{mpsc, oneshot};

use crate::pubsub::{
    Affiliation, Changes, Item, ItemId, Node, NodeId,
    op::{discover::NodeSummary, retrieve::Selection},
};

use self::{
    committer::{Commit, Committer},
    reader::Reader,
};
use super::{Cursor, Store, StoreError};

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
        let reader = Reader::new(tree.clone());
        reader.check_version()?;
        let next = reader.last_number()? + 1;
        mark(directory, &marker).map_err(|error| failed(&error))?;
        let file = File::open(directory.join("db")).map_err(|error| failed(&error))?;
        let writer = Committer::start(tree, Box::new(move || file.sync_data()), next)?;
        Ok(Self { reader, writer: Mutex::new(Some(writer)) })
    }

    /// Ends the committer, which finishes what it was sent; gives what has to be waited for.
    fn end(&self) -> Option<JoinHandle<()>> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        writer.map(|(_, thread)| thread)
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
        drop(sender);
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
        if let Some(thread) = self.end() {
            // If it panicked, there is nothing more to wait for.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if let Some(thread) = self.end() {
            let _ = thread.join();
        }
    }
}
