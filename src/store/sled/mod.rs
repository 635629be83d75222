//! Store in a folder, on sled 0.34. The `committer` module makes commits durable; `docs/DATA-MODEL.md` describes the
//! layout.

mod check;
mod committer;
mod config_record;
mod cross_node;
mod flush_watchdog;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gc;
mod item_query;
mod keys;
mod ledger;
mod log_entry_record;
mod manifest;
mod open;
mod owed;
mod rebase;
mod record;
mod recovery;
mod revoked_resources;
mod tree_reader;
mod upgrade;
mod write_batch;
mod write_tx;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

use async_trait::async_trait;
use jid::{BareJid, Jid};
use tokio::sync::oneshot;

use gjallar_pubsub::{
    Affiliation, FormerNode, IdGenerator, Item, ItemBudget, ItemId, ItemPage, ItemPosition,
    ItemQuery, ItemRef, Node, NodeId, OrderField, OwnerHash, PageBound, PageRequest, ResultPage,
    Subscription, op::discover::NodeSummary,
};

use self::{
    committer::{Committer, CommitterRequest, PendingCommit, WriteRequest},
    open::OpenStore,
    record::{ItemRecord, PayloadRecord, StoredPayload},
    tree_reader::{ReadHandle, TreeReader},
};
use super::{Commit, NodeNumber, OnCommit, Owed, Partial, Store, StoreError, Told};

/// Store in a folder of its own.
#[derive(Debug)]
pub struct SledStore {
    key: u64,
    reader: ReadHandle,
    writer: Mutex<Option<CommitterHandle>>,
}

/// Default size of the page cache in MiB.
pub const CACHE_MIB: u16 = 24;

type CommitterHandle = (mpsc::SyncSender<CommitterRequest>, JoinHandle<()>);

impl SledStore {
    /// Opens the store in a folder, and creates the folder if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has the store open, [`StoreError::Version`] if another version wrote
    /// the store, [`StoreError::Corrupt`] if a record is damaged, [`StoreError::Rebase`] if a rebase was interrupted.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with_cache(directory, CACHE_MIB)
    }

    /// As [`open`](Self::open), with a page cache of this many MiB.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_cache(directory: &Path, cache_mib: u16) -> Result<Self, StoreError> {
        let cache_bytes = u64::from(cache_mib) << 20;
        let opened = OpenStore::open(directory, cache_bytes)?;
        if opened.tree.contains_key(keys::REBASE).map_err(|error| sled_failed(&error))? {
            return Err(StoreError::Rebase);
        }
        let (key, reader) = (opened.total.store, ReadHandle::new(&opened.tree, &opened.ledger));
        let directory = directory.to_owned();
        let open = Box::new(move || OpenStore::open(&directory, cache_bytes));
        let writer = Committer::start(opened, reader.clone(), open)?;
        Ok(Self { key, reader, writer: Mutex::new(Some(writer)) })
    }

    /// Opens the store in a folder that contains one.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreError::Failed`] if the folder contains no store.
    pub fn open_existing(directory: &Path) -> Result<Self, StoreError> {
        if manifest::is_in(directory) {
            Self::open(directory)
        } else {
            Err(failed("no store is there"))
        }
    }

    /// Returns the text of the store's manifest, which changes with every commit.
    ///
    /// # Errors
    /// If the folder contains no store.
    pub fn state(directory: &Path) -> Result<String, StoreError> {
        manifest::text(directory).map_err(|error| failed(&error))
    }

    /// Encodes an item and its payload as one row, for benchmarks of the cost of a publish.
    ///
    /// # Errors
    /// If the item cannot be encoded.
    pub fn item_record(item: &Item) -> Result<Vec<u8>, StoreError> {
        let content = item
            .payload
            .as_ref()
            .map_or(StoredPayload::None, |p| StoredPayload::Here(PayloadRecord::of(p)));
        record::encode(
            &keys::item(NodeNumber(0), item.position()),
            &ItemRecord::of(item, item.created, content),
        )
    }

    /// Assigns a new epoch (the first part of event ids) to every node of the store in a folder, and returns the number
    /// of nodes. A store restored from a copy needs new epochs. Otherwise new events could get the ids of events that
    /// occurred after the copy was made. The store must not be open.
    ///
    /// # Errors
    /// As [`open_existing`](Self::open_existing). If the write fails, the rebase has to be repeated.
    pub fn rebase(directory: &Path, fresh: &dyn IdGenerator) -> Result<u64, StoreError> {
        if !manifest::is_in(directory) {
            return Err(failed("no store is there"));
        }
        rebase::rebase(&mut OpenStore::open(directory, u64::from(CACHE_MIB) << 20)?, fresh)
    }

    /// Replaces the store in a folder by the store in the folder `by`, if the manifest of the replaced store still has
    /// the text `state`. Neither store may be open.
    ///
    /// # Errors
    /// If the manifest has changed, the store is in use, or a file cannot be moved. In the last case an empty store is
    /// left.
    pub fn replace(directory: &Path, state: &str, by: &Path) -> Result<(), StoreError> {
        manifest::replace(directory, state, by)
    }

    async fn work<T>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> CommitterRequest,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        self.send(work(done));
        result.await.map_err(|_| failed("too much is under way, or the store is closed"))?
    }

    /// Sends a request to the committer. A request that cannot be sent is dropped; its caller then gets an error.
    fn send(&self, work: CommitterRequest) {
        if let Some((sender, _)) = &*self.writer() {
            drop(sender.try_send(work));
        }
    }

    fn writer(&self) -> MutexGuard<'_, Option<CommitterHandle>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the committer after the requests sent so far; returns the thread to join.
    fn end(&self) -> Option<JoinHandle<()>> {
        self.writer().take().map(|(_, thread)| thread)
    }

    /// Reads concurrently with other reads and commits. If concurrent commits disturb several attempts, reads once more
    /// while no commit is applied.
    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&TreeReader) -> Result<T, StoreError> + Send + 'static,
    {
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || {
            let reading = reader.lock_shared();
            if let Some(found) = reader.tree_reader()?.read_between_commits(&read) {
                return found;
            }
            drop(reading);
            let _nobody_writes = reader.lock_exclusive();
            read(&reader.tree_reader()?)
        });
        read.await.map_err(|_| cannot_be_read())?
    }

    /// Reads a few rows on the current thread. Falls back to [`read`](Self::read), on another thread, while the files
    /// are locked exclusively or if commits keep changing the rows.
    async fn read_inline<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&TreeReader) -> Result<T, StoreError> + Send + 'static,
    {
        if let Some(_reading) = self.reader.try_reading() {
            let view = self.reader.tree_reader()?;
            let found = catch_unwind(AssertUnwindSafe(|| view.read_between_commits(&read)));
            if let Some(found) = found.unwrap_or_else(|_| Some(Err(cannot_be_read()))) {
                return found;
            }
        }
        self.read(read).await
    }

    /// Reads while no other read or commit runs.
    async fn read_exclusive<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&TreeReader) -> Result<T, StoreError> + Send + 'static,
    {
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _nobody_writes = reader.lock_exclusive();
            read(&reader.tree_reader()?)
        });
        read.await.map_err(|_| cannot_be_read())?
    }
}

/// Returns the error for a panic of sled. sled panics on pages that it cannot decode.
fn cannot_be_read() -> StoreError {
    StoreError::Corrupt("damaged files: sled cannot read them".into())
}

/// Returns an error that only an operator can resolve.
fn failed(reason: &(impl Display + ?Sized)) -> StoreError {
    StoreError::Failed(reason.to_string())
}

/// Maps an error of sled.
fn sled_failed(error: &sled::Error) -> StoreError {
    match error {
        sled::Error::Corruption { .. } => {
            StoreError::Corrupt("damaged files: sled reports corruption".into())
        }
        _ => failed(error),
    }
}

#[async_trait]
impl Store for SledStore {
    fn is_durable(&self) -> bool {
        true
    }

    fn key(&self) -> u64 {
        self.key
    }

    fn commit(&self, commit: Commit, then: OnCommit) {
        let pending = PendingCommit::new(&commit, then);
        self.send(CommitterRequest::Write(WriteRequest::Commit(commit, pending)));
    }

    async fn poll(&self, nodes: Option<&[NodeId]>) -> Result<Vec<Owed>, StoreError> {
        let nodes = nodes.map(<[NodeId]>::to_vec);
        // Log entries have several rows, and none may be removed during the read.
        self.read_exclusive(move |view| owed::pending_entries(view, nodes.as_deref())).await
    }

    async fn acknowledge(&self, acks: Told) -> Result<(), StoreError> {
        self.work(|done| CommitterRequest::Write(WriteRequest::Acknowledge { acks, done })).await
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let (id, little) = (id.clone(), id.clone());
        match self.read_inline(move |view| view.small_node(&little)).await? {
            Some(node) => Ok(node),
            None => self.read(move |view| view.node(&id)).await,
        }
    }

    async fn node_counts(&self) -> Result<HashMap<BareJid, u64>, StoreError> {
        self.read(TreeReader::creators).await
    }

    async fn nodes_with_timers(&self) -> Result<Vec<NodeId>, StoreError> {
        self.read(TreeReader::nodes_with_timers).await
    }

    async fn nodes(
        &self,
        page: &PageRequest<NodeNumber>,
    ) -> Result<Partial<Vec<(NodeNumber, NodeSummary)>>, StoreError> {
        let page = page.clone();
        self.read(move |view| view.nodes(&page)).await
    }

    async fn summary(
        &self,
        node: &NodeId,
    ) -> Result<Option<(NodeNumber, NodeSummary)>, StoreError> {
        let node = node.clone();
        self.read_inline(move |view| view.summary(&node)).await
    }

    async fn former(&self, node: &NodeId) -> Result<Option<FormerNode>, StoreError> {
        let node = node.clone();
        self.read_inline(move |view| view.former(&node)).await
    }

    async fn former_nodes(&self) -> Result<Vec<(NodeId, FormerNode)>, StoreError> {
        self.read(TreeReader::former_nodes).await
    }

    async fn redirects_len(&self) -> Result<usize, StoreError> {
        Ok(self.reader.redirects_len())
    }

    async fn redirects_of(&self, account: &OwnerHash) -> Result<usize, StoreError> {
        Ok(self.reader.redirects_of(account))
    }

    async fn items(
        &self,
        node: &NodeId,
        ids: &[ItemId],
        budget: &ItemBudget,
    ) -> Result<ResultPage<Item>, StoreError> {
        let (node, ids, budget) = (node.clone(), ids.to_vec(), budget.clone());
        self.read_inline(move |view| view.items(&node, &ids, &budget)).await
    }

    async fn publishers(
        &self,
        node: &NodeId,
        ids: &[ItemId],
    ) -> Result<BTreeMap<ItemId, BareJid>, StoreError> {
        let (node, ids) = (node.clone(), ids.to_vec());
        self.read_inline(move |view| view.publishers(&node, &ids)).await
    }

    async fn list(
        &self,
        node: &NodeId,
        query: &ItemQuery,
        budget: &ItemBudget,
    ) -> Result<Option<ItemPage>, StoreError> {
        let (node, query, budget) = (node.clone(), query.clone(), budget.clone());
        let is_little = query.filter.is_none()
            && query.order.by == OrderField::Modification
            && !matches!(query.page.edge, PageBound::At(index) if index > 0);
        let read = move |view: &TreeReader| view.list(&node, &query, &budget);
        if is_little { self.read_inline(read).await } else { self.read(read).await }
    }

    async fn page_of_ids(
        &self,
        node: &NodeId,
        page: &PageRequest<ItemRef>,
        entry_bytes: usize,
        max_bytes: usize,
    ) -> Result<Option<ResultPage<(ItemId, ItemPosition)>>, StoreError> {
        let (node, page) = (node.clone(), page.clone());
        self.read(move |view| view.page_of_ids(&node, &page, entry_bytes, max_bytes)).await
    }

    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Affiliation)>>, StoreError> {
        let entity = entity.clone();
        self.read(move |view| view.affiliations_of(&entity)).await
    }

    async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Subscription)>>, StoreError> {
        let entity = entity.clone();
        self.read(move |view| view.subscriptions_of(&entity)).await
    }

    async fn owner_subscribed(&self, node: &NodeId) -> Result<HashSet<Jid>, StoreError> {
        let node = node.clone();
        self.read(move |view| view.enrolled(&node)).await
    }

    async fn enrolled_among(
        &self,
        node: &NodeId,
        subscribers: &[Jid],
    ) -> Result<HashSet<Jid>, StoreError> {
        let (node, subscribers) = (node.clone(), subscribers.to_vec());
        self.read(move |view| view.enrolled_among(&node, &subscribers)).await
    }

    async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<Partial<usize>, StoreError> {
        let entity = entity.clone();
        self.read_inline(move |view| view.count_subscriptions_of(&entity, up_to)).await
    }

    async fn subscribed_aliases(&self) -> Result<BTreeSet<BareJid>, StoreError> {
        self.read(TreeReader::subscribed_aliases).await
    }

    async fn revoke_implicit(
        &self,
        node: &NodeId,
        resources: BTreeSet<Jid>,
    ) -> Result<(), StoreError> {
        let node = node.clone();
        self.work(|done| {
            CommitterRequest::Write(WriteRequest::RevokeImplicit { node, resources, done })
        })
        .await
    }

    async fn presence_refusals(&self) -> Result<Vec<BareJid>, StoreError> {
        self.read(TreeReader::presence_refusals).await
    }

    async fn set_presence_refusals(&self, changes: &[(BareJid, bool)]) -> Result<(), StoreError> {
        let changes = changes.to_vec();
        self.work(|done| CommitterRequest::Write(WriteRequest::PresenceRefusals { changes, done }))
            .await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.read_exclusive(check::check).await
    }

    async fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError> {
        let folder = folder.to_owned();
        self.work(|done| CommitterRequest::Copy { folder, done }).await
    }

    async fn close(&self) {
        if let Some(thread) = self.end() {
            // After a panic of the thread there is nothing more to wait for.
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
