//! Storage of nodes, items, subscriptions and the event log.
//!
//! A store enforces no rule of XEP-0060. It applies [`Changes`](gjallar_pubsub::Changes), which only the rules in the
//! crate `gjallar_pubsub` create. Every back end passes the same contract tests, `tests/store/contract.rs`.

mod commit;
mod deleted_nodes;
mod memory;
mod paginate;
mod sled;

pub use commit::{Commit, CommitChain, CommitReceipt, LogPosition, MAX_PENDING_COMMITS, OnCommit};
pub use memory::MemoryStore;
#[cfg(fuzzing)]
pub use sled::fuzzing;
pub use sled::{CACHE_MIB, SledStore};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
    path::Path,
};

use async_trait::async_trait;
use jid::{BareJid, Jid};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

use gjallar_pubsub::{
    Affiliation, FormerNode, Item, ItemBudget, ItemId, ItemOrder, ItemPage, ItemPosition,
    ItemQuery, ItemRef, LogEntry, Node, NodeId, OwnerHash, PageBound, PageRequest, Recipients,
    ResultPage, Subscription, op::discover::NodeSummary,
};

/// Maximum number of records of deleted nodes without a redirect; the oldest deletions are evicted first.
pub const MAX_FORMER_NODES: usize = 100_000;
/// Maximum number of reserved names of one account, that is, in its [share](FormerNode::share).
pub const MAX_OWN_FORMER_NODES: usize = 10_000;

/// Storage of a service's nodes.
///
/// - [`commit`](Store::commit) is atomic: after an error, and after a crash at any moment, all or none of its changes
///   are stored.
/// - A commit that returned `Ok` is durable, and visible to every later read.
/// - An unreadable record is an error that names the record, never a panic. A read over many nodes returns the readable
///   part of the result, and a list of the damaged records.
///
/// A caller may submit further commits before earlier ones complete, up to [`MAX_PENDING_COMMITS`] at a time.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns `true` if the stored data outlives the process.
    fn is_durable(&self) -> bool;

    /// Returns a number that is unique to the store. Message ids are derived from the number, so a repeated message has
    /// the same id.
    fn key(&self) -> u64;

    /// Atomically applies the changes of a commit and appends its log entries. A store whose data does not outlive the
    /// process appends no entries.
    ///
    /// Commits are applied in call order. `then` is invoked exactly once for each commit, when the commit completes. A
    /// commit that removes many subscriptions may complete after later commits. Any error means that the outcome is
    /// *unknown*: the caller reads the node again before it continues. After an error no later commit of its chain (the
    /// pending commits of one node) is applied. Calls beyond [`MAX_PENDING_COMMITS`] may fail.
    fn commit(&self, commit: Commit, then: OnCommit);

    /// Commits, and waits for the result.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    async fn commit_now(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        let (done, committed) = oneshot::channel();
        // The send fails only if the caller has stopped waiting.
        self.commit(commit, Box::new(move |result| drop(done.send(result))));
        let ended = |_| Err(StoreError::Failed("the store is closed".into()));
        committed.await.unwrap_or_else(ended)
    }

    /// Returns the pending log entries of these nodes, or of all nodes (`None`), in commit order.
    ///
    /// # Errors
    /// If one of the records cannot be read.
    async fn poll(&self, nodes: Option<&[NodeId]>) -> Result<Vec<Owed>, StoreError>;

    /// Acknowledges log entries, and removes the entries that are delivered to all recipients.
    ///
    /// # Errors
    /// If the write fails; then notifications may be sent again.
    async fn acknowledge(&self, acks: Told) -> Result<(), StoreError>;

    /// Records that resources have lost their implicit subscription to a node for another reason than a commit, for
    /// example because of a roster change. Pending notifications are no longer sent to these resources, even after a
    /// restart.
    ///
    /// # Errors
    /// If the write fails; then notifications may be sent to these resources after a restart.
    async fn revoke_implicit(
        &self,
        node: &NodeId,
        resources: BTreeSet<Jid>,
    ) -> Result<(), StoreError>;

    /// Reads a node, without its items.
    ///
    /// # Errors
    /// If the node cannot be read.
    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError>;

    /// Returns the number of existing nodes of each creator.
    ///
    /// # Errors
    /// If one of the nodes cannot be read.
    async fn node_counts(&self) -> Result<HashMap<BareJid, u64>, StoreError>;

    /// Returns at least the nodes with timers (expiry, leases, digests) and the nodes with subscriptions that depend on
    /// presence. The result may include other nodes.
    ///
    /// # Errors
    /// If one of the nodes cannot be read.
    async fn nodes_with_timers(&self) -> Result<Vec<NodeId>, StoreError>;

    /// Reads a page of the list of nodes, in order of creation. The page leaves out damaged nodes and continues with
    /// the nodes after them, so it is full unless the list ends.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn nodes(
        &self,
        page: &PageRequest<NodeNumber>,
    ) -> Result<Partial<Vec<(NodeNumber, NodeSummary)>>, StoreError>;

    /// Reads the number and the summary of a node, which are its entry in the list of nodes.
    ///
    /// # Errors
    /// If the node cannot be read.
    async fn summary(&self, node: &NodeId)
    -> Result<Option<(NodeNumber, NodeSummary)>, StoreError>;

    /// Reads the record of a deleted node. Returns `None` once a node of this name exists again. The store keeps at
    /// most [`MAX_FORMER_NODES`] records without a redirect, and at most [`MAX_OWN_FORMER_NODES`] of them for each
    /// account ([share](FormerNode::share)). Past a limit, the store evicts the oldest records.
    ///
    /// # Errors
    /// If the record cannot be read.
    async fn former(&self, node: &NodeId) -> Result<Option<FormerNode>, StoreError>;

    /// Reads the records of all deleted nodes. The records with a redirect come first, in the order in which the nodes
    /// were created. The records without a redirect follow, in the order in which the nodes were deleted.
    ///
    /// # Errors
    /// If one of the records cannot be read.
    async fn former_nodes(&self) -> Result<Vec<(NodeId, FormerNode)>, StoreError>;

    /// Returns the number of deleted nodes with a redirect.
    ///
    /// # Errors
    /// If the store is closed.
    async fn redirects_len(&self) -> Result<usize, StoreError>;

    /// Returns the number of redirects that count toward the limit of an account ([share](FormerNode::share)).
    ///
    /// # Errors
    /// If the store is closed.
    async fn redirects_of(&self, account: &OwnerHash) -> Result<usize, StoreError>;

    /// Reads the newest of the items `ids` of a node whose total size fits the budget, but at least one item. The items
    /// are returned with the oldest first. The [`total`](ResultPage::total) of the result is the number of items in
    /// `ids` that exist. An absent node has no items.
    ///
    /// # Errors
    /// If one of the items cannot be read.
    async fn items(
        &self,
        node: &NodeId,
        ids: &[ItemId],
        budget: &ItemBudget,
    ) -> Result<ResultPage<Item>, StoreError>;

    /// Reads the publishers of the items `ids` of a node. Items that do not exist are left out. An absent node has no
    /// items.
    ///
    /// # Errors
    /// If one of the items cannot be read.
    async fn publishers(
        &self,
        node: &NodeId,
        ids: &[ItemId],
    ) -> Result<BTreeMap<ItemId, BareJid>, StoreError>;

    /// Reads a page of a node's items: as many as fit the byte budget, and the first item in any case. Returns `None`
    /// if an item named in the query does not exist. An absent node has no items. If the query has a filter that few
    /// items match, the page may be empty although later pages have items.
    ///
    /// # Errors
    /// If one of the items cannot be read.
    async fn list(
        &self,
        node: &NodeId,
        query: &ItemQuery,
        budget: &ItemBudget,
    ) -> Result<Option<ItemPage>, StoreError>;

    /// Reads a page of all items of a node, oldest first: items with a total size of at most `max_bytes`
    /// ([`Item::size`]), but at least one item.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    async fn page(
        &self,
        node: &NodeId,
        page: &PageRequest<ItemId>,
        max_bytes: usize,
    ) -> Result<Option<ResultPage<Item>>, StoreError> {
        let query = ItemQuery::of(page.clone().map(ItemRef::Name), ItemOrder::default());
        Ok(self.list(node, &query, &ItemBudget::stored(max_bytes)).await?.map(|listed| listed.part))
    }

    /// Reads the ids and positions of a page of items, oldest first. Each item counts as `entry_bytes` plus the bytes
    /// of its id; the total of all items of the page is at most `max_bytes`.
    ///
    /// # Errors
    /// If one of the items cannot be read.
    async fn page_of_ids(
        &self,
        node: &NodeId,
        page: &PageRequest<ItemRef>,
        entry_bytes: usize,
        max_bytes: usize,
    ) -> Result<Option<ResultPage<(ItemId, ItemPosition)>>, StoreError>;

    /// Lists the affiliations of this JID, each with its node. Affiliations of its [aliases](BareJid::is_alias) are not
    /// included.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Affiliation)>>, StoreError>;

    /// Lists the subscriptions of this bare JID and its full JIDs, including pending ones, each with its node.
    /// Subscriptions of its [aliases](BareJid::is_alias) are not included.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Subscription)>>, StoreError>;

    /// Returns the JIDs whose subscription to a node was created by an owner on their behalf.
    ///
    /// # Errors
    /// If one of the subscriptions cannot be read.
    async fn owner_subscribed(&self, node: &NodeId) -> Result<HashSet<Jid>, StoreError>;

    /// Returns the JIDs in `subscribers` whose subscription to the node was created by an owner on their behalf.
    ///
    /// # Errors
    /// If one of the subscriptions cannot be read.
    async fn enrolled_among(
        &self,
        node: &NodeId,
        subscribers: &[Jid],
    ) -> Result<HashSet<Jid>, StoreError>;

    /// Counts the subscriptions that an entity made itself, including pending ones, up to a limit. An unreadable
    /// subscription is counted.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<Partial<usize>, StoreError>;

    /// Returns the entities with a subscription, including pending ones, whose JID is an [alias](BareJid::is_alias):
    /// some servers treat it as a second name of another address. Damaged records are skipped.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn subscribed_aliases(&self) -> Result<BTreeSet<BareJid>, StoreError>;

    /// Returns the entities that refused to share their presence with the service.
    ///
    /// # Errors
    /// If one of the records cannot be read.
    async fn presence_refusals(&self) -> Result<Vec<BareJid>, StoreError>;

    /// Adds entities to the presence refusals (`true`), or removes entities (`false`).
    ///
    /// # Errors
    /// If the write fails; then all changes or none are stored.
    async fn set_presence_refusals(&self, changes: &[(BareJid, bool)]) -> Result<(), StoreError>;

    /// Reads and checks the whole store: verifies every checksum and every count, and compares every index row with the
    /// row that it points to. Returns the problems, one line each.
    ///
    /// # Errors
    /// If reading cannot continue.
    async fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Copies the store's files into an existing folder. The copy has the state that the store had between two commits.
    /// Reads and writes wait until the copy is complete.
    ///
    /// # Errors
    /// If the store has no files, or they cannot be copied.
    async fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError>;

    /// Closes the store: commits in progress are completed, and later commits fail.
    async fn close(&self);
}

/// Result of a read over many nodes, with the records that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial<T> {
    /// Readable part of the result.
    pub found: T,
    /// Records that could not be read.
    pub damaged: Vec<CorruptRecord>,
}

/// Damaged record: its content is not the content that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRecord {
    /// Node that the record belongs to, if its name can be read.
    pub node: Option<NodeId>,
    /// Table and key of the record.
    pub record: String,
}

impl<T> From<T> for Partial<T> {
    fn from(found: T) -> Self {
        Self { found, damaged: Vec::new() }
    }
}

/// Number that the store assigns to a node, starting at 1. The list of nodes is in the order of these numbers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeNumber(pub(crate) u64);

impl NodeNumber {
    const MIN: Self = Self(0);
    const MAX: Self = Self(u64::MAX);

    /// Returns the next node number.
    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Returns the range of node numbers for a page, and the number of nodes to skip at the beginning of the range.
fn numbers(page: &PageRequest<NodeNumber>) -> (Range<NodeNumber>, usize) {
    match page.edge {
        PageBound::After(number) => (number.next()..NodeNumber::MAX, 0),
        PageBound::At(index) => (NodeNumber::MIN..NodeNumber::MAX, index),
        PageBound::Before(number) => (NodeNumber::MIN..number, 0),
        PageBound::Last => (NodeNumber::MIN..NodeNumber::MAX, 0),
    }
}

/// Pending log entry with its remaining recipients.
#[derive(Clone, Debug)]
pub struct Owed {
    /// Position in the event log.
    pub debt: LogPosition,
    /// Entry to deliver.
    pub notification: LogEntry,
    /// Recipients that were entitled to the entry at the commit, in the order of [`Node::subscribers`]. Recipients that
    /// have lost their subscription since the commit are left out, and so are recipients whose delivery of the entry is
    /// acknowledged.
    pub recipients: Recipients,
}

/// Acknowledgement of log entries.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Entries delivered to all recipients.
    pub debts: Vec<LogPosition>,
    /// Entries delivered in part, each with the last recipient that was served. The store keeps this progress until the
    /// entries are removed. If there is no room for all of it, the store first drops the progress of earlier
    /// acknowledgements, then the progress at the end of this list. The log entries themselves stay.
    pub partly: Vec<(LogPosition, Jid)>,
}

/// Error of a store.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Another process uses the store.
    #[error("the store is in use by another process")]
    Locked,
    /// The process runs as root, but the store belongs to the user with this id, and this user could not open the files
    /// that root would create.
    #[error("the store belongs to the user with id {0}: run as that user")]
    WrongOwner(u32),
    /// A record or a file is damaged or missing, or the folder has files that do not belong to a store of this service.
    /// The text names the problem.
    #[error("{0}")]
    Corrupt(String),
    /// The store has a layout version that this binary does not read.
    #[error("the store has layout version {found}, this version reads {expected}: {}", advice(*found))]
    Version {
        /// Layout version of the store.
        found: u8,
        /// Layout version of this binary.
        expected: u8,
    },
    /// `gjallar store rebase` was interrupted, and has to be run again.
    #[error("`gjallar store rebase` was interrupted: run it again")]
    Rebase,
    /// The store was closed, or the disk or the storage software failed.
    #[error("{0}")]
    Failed(String),
}

/// Returns the text that tells the operator what to do with a store of another layout version.
fn advice(found: u8) -> &'static str {
    match found {
        // Layout 1 predates the export and was never released.
        1 => "this layout cannot be read any more: create a new store",
        _ => "export it with a version that reads it, then import the archive into a new store",
    }
}
