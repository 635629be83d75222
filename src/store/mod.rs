//! Making it true: where a service keeps its nodes.
//!
//! One write, a few reads. A store enforces no rule of XEP-0060; it carries out
//! [`Changes`](gjallar_pubsub::Changes), which only the rules make. Every back end passes the same contract,
//! `tests/store/contract.rs`.

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

/// How many deleted nodes without a redirect are remembered: those that were deleted last.
pub const MAX_FORMER_NODES: usize = 100_000;
/// Maximum number of reserved names in the share of one owner.
pub const MAX_OWN_FORMER_NODES: usize = 10_000;

/// Where a service keeps its nodes.
///
/// - [`commit`](Store::commit) is atomic: after an error, and after a crash at any moment, all its
///   changes are there or none.
/// - What it returned `Ok` for is durable, and visible to every later read.
/// - A record that cannot be read is an error that says where, never a panic; where many nodes are looked
///   at, it is said beside what was found.
///
/// A caller does not wait for one commit before it asks for the next, but has at most [`MAX_PENDING_COMMITS`] under way.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns `true` if what it has outlives the process.
    fn is_durable(&self) -> bool;

    /// A number that no other store has. Ids of messages are made with it, so that repeats have the same.
    fn key(&self) -> u64;

    /// Makes changes true, and owes what is to be told of them. A store that does not outlive the process owes
    /// nothing.
    ///
    /// Commits are carried out in the order of the calls, and `then` is called once for each, in the order in
    /// which they became true: one that loses many subscriptions after later ones. Any error means *unknown*: the caller reads the node again before it goes on.
    /// After it nothing of the chain is carried out. More than [`MAX_PENDING_COMMITS`] may fail.
    fn commit(&self, commit: Commit, then: OnCommit);

    /// Commits, and waits until it is true.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    async fn commit_now(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        let (done, committed) = oneshot::channel();
        // If nobody waits any more, nobody is told.
        self.commit(commit, Box::new(move |result| drop(done.send(result))));
        let ended = |_| Err(StoreError::Failed("the store is closed".into()));
        committed.await.unwrap_or_else(ended)
    }

    /// What is owed, by one node or by all, in the order of the commits.
    ///
    /// # Errors
    /// If one of the records cannot be read.
    async fn poll(&self, nodes: Option<&[NodeId]>) -> Result<Vec<Owed>, StoreError>;

    /// Forgets what was told.
    ///
    /// # Errors
    /// If that cannot be written; then it may be told again.
    async fn acknowledge(&self, told: Told) -> Result<(), StoreError>;

    /// Records that resources have lost their implicit subscription to a node without a change of the node: pending
    /// notifications go to them neither now nor after a restart.
    ///
    /// # Errors
    /// If that cannot be written; then these may go to them after a restart.
    async fn revoke_implicit(
        &self,
        node: &NodeId,
        resources: BTreeSet<Jid>,
    ) -> Result<(), StoreError>;

    /// A node, without its items.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError>;

    /// How many nodes each entity created that are there.
    ///
    /// # Errors
    /// If one of them cannot be read.
    async fn node_counts(&self) -> Result<HashMap<BareJid, u64>, StoreError>;

    /// The nodes at which time, or somebody's presence, has something to do.
    ///
    /// # Errors
    /// If one of them cannot be read.
    async fn nodes_with_timers(&self) -> Result<Vec<NodeId>, StoreError>;

    /// Reads a page of the nodes, in the order of their creation. It is full unless the list ends: damaged nodes are
    /// replaced by the next ones.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn nodes(
        &self,
        page: &PageRequest<NodeNumber>,
    ) -> Result<Partial<Vec<(NodeNumber, NodeSummary)>>, StoreError>;

    /// A node as it stands in that list.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn summary(&self, node: &NodeId)
    -> Result<Option<(NodeNumber, NodeSummary)>, StoreError>;

    /// What is remembered of a node that was deleted, until there is one of this name again: of those without a redirect,
    /// of the newest [`MAX_FORMER_NODES`], and of the newest [`MAX_OWN_FORMER_NODES`] of one share.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn former(&self, node: &NodeId) -> Result<Option<FormerNode>, StoreError>;

    /// All of these: those with a redirect in the order in which they were created, and then the others in the order in
    /// which they were deleted.
    ///
    /// # Errors
    /// If one of them cannot be read.
    async fn former_nodes(&self) -> Result<Vec<(NodeId, FormerNode)>, StoreError>;

    /// How many of them have a redirect.
    ///
    /// # Errors
    /// If the store has ended.
    async fn redirects_len(&self) -> Result<usize, StoreError>;

    /// The number of redirects in the [share](FormerNode::share) of an account.
    ///
    /// # Errors
    /// If the store has ended.
    async fn redirects_of(&self, account: &OwnerHash) -> Result<usize, StoreError>;

    /// Items of a node, oldest first, of which the newest that fit are given, but at least one; with the number of
    /// those that exist. An absent node has none.
    ///
    /// # Errors
    /// If one of them cannot be read.
    async fn items(
        &self,
        node: &NodeId,
        ids: &[ItemId],
        budget: &ItemBudget,
    ) -> Result<ResultPage<Item>, StoreError>;

    /// The publishers of items of a node; absent items are left out. An absent node has none.
    ///
    /// # Errors
    /// If one of them cannot be read.
    async fn publishers(
        &self,
        node: &NodeId,
        ids: &[ItemId],
    ) -> Result<BTreeMap<ItemId, BareJid>, StoreError>;

    /// A part of a list of items of a node: as many as fit, but at least one; nothing if an item that is named is not
    /// there. An absent node has none. If a filter lets little through, the part may have
    /// nothing though the list goes on.
    ///
    /// # Errors
    /// If one of them cannot be read.
    async fn list(
        &self,
        node: &NodeId,
        listing: &ItemQuery,
        budget: &ItemBudget,
    ) -> Result<Option<ItemPage>, StoreError>;

    /// A page of all items of a node, oldest first: those that have together at most `max_bytes` ([`Item::size`]), but
    /// at least one.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    async fn page(
        &self,
        node: &NodeId,
        page: &PageRequest<ItemId>,
        max_bytes: usize,
    ) -> Result<Option<ResultPage<Item>>, StoreError> {
        let listing = ItemQuery::of(page.clone().map(ItemRef::Name), ItemOrder::default());
        Ok(self
            .list(node, &listing, &ItemBudget::stored(max_bytes))
            .await?
            .map(|listed| listed.part))
    }

    /// The ids and positions of a page of items, oldest first. An entry takes `entry_bytes` and the bytes of its id;
    /// all of them take at most `max_bytes`.
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

    /// The affiliations of exactly this address, by node.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Affiliation)>>, StoreError>;

    /// The subscriptions of exactly this address and its resources, pending ones too, by node.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Subscription)>>, StoreError>;

    /// Whom owners subscribed to a node.
    ///
    /// # Errors
    /// If one of the subscriptions cannot be read.
    async fn owner_subscribed(&self, node: &NodeId) -> Result<HashSet<Jid>, StoreError>;

    /// The subscribers among these of a node that were subscribed by owners.
    ///
    /// # Errors
    /// If one of the subscriptions cannot be read.
    async fn enrolled_among(
        &self,
        node: &NodeId,
        subscribers: &[Jid],
    ) -> Result<HashSet<Jid>, StoreError>;

    /// How many subscriptions an entity made that are there or wait, counted up to a number. One that cannot be
    /// read counts.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<Partial<usize>, StoreError>;

    /// The subscribed and pending entities that are [aliases](BareJid::is_alias). Damaged records are passed over.
    ///
    /// # Errors
    /// If the store cannot be read.
    async fn subscribed_aliases(&self) -> Result<BTreeSet<BareJid>, StoreError>;

    /// The entities that refused the service their presence.
    ///
    /// # Errors
    /// If one of them cannot be read.
    async fn presence_refusals(&self) -> Result<Vec<BareJid>, StoreError>;

    /// Adds entities to those, or removes them.
    ///
    /// # Errors
    /// If that cannot be written; then none of them is, or all are.
    async fn set_presence_refusals(&self, changes: &[(BareJid, bool)]) -> Result<(), StoreError>;

    /// Reads everything and compares it: every checksum, every row of an index with what it points to,
    /// every count. Says what is wrong, each thing in a line.
    ///
    /// # Errors
    /// If the store cannot be read on.
    async fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Copies the store's files, as they are between two commits, into a folder that is there. Nothing is
    /// read or written meanwhile.
    ///
    /// # Errors
    /// If it has no files, or they cannot be copied.
    async fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError>;

    /// Ends the store's work: what was begun is finished, and later commits fail.
    async fn close(&self);
}

/// What was found at many nodes, but for what is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial<T> {
    /// What was found.
    pub found: T,
    /// What could not be read.
    pub damaged: Vec<CorruptRecord>,
}

/// A record that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptRecord {
    /// The node that it belongs to, if its name can be read.
    pub node: Option<NodeId>,
    /// Its table and key.
    pub record: String,
}

impl<T> From<T> for Partial<T> {
    fn from(found: T) -> Self {
        Self { found, damaged: Vec::new() }
    }
}

/// The store's number of a node, from 1: its place in the list of nodes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeNumber(pub(crate) u64);

impl NodeNumber {
    const MIN: Self = Self(0);
    const MAX: Self = Self(u64::MAX);

    /// The number of the node that is created next.
    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The numbers of the nodes of a page, and how many of these are skipped.
fn numbers(page: &PageRequest<NodeNumber>) -> (Range<NodeNumber>, usize) {
    match page.edge {
        PageBound::After(number) => (number.next()..NodeNumber::MAX, 0),
        PageBound::At(index) => (NodeNumber::MIN..NodeNumber::MAX, index),
        PageBound::Before(number) => (NodeNumber::MIN..number, 0),
        PageBound::Last => (NodeNumber::MIN..NodeNumber::MAX, 0),
    }
}

/// A notification that is owed, and to whom.
#[derive(Clone, Debug)]
pub struct Owed {
    /// What the store calls it.
    pub debt: LogPosition,
    /// What has to be told.
    pub notification: LogEntry,
    /// Those who were entitled when it was committed, have not lost their subscription since, and were
    /// not told yet; in the order of [`Node::subscribers`].
    pub recipients: Recipients,
}

/// What was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// To everyone.
    pub debts: Vec<LogPosition>,
    /// To all up to this recipient. A store keeps them until the debts are forgotten; of very many it keeps the latest,
    /// and of these the first.
    pub partly: Vec<(LogPosition, Jid)>,
}

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Another process uses it.
    #[error("the store is in use by another process")]
    Locked,
    /// It belongs to a user who could not open what root makes there.
    #[error("the store belongs to the user with id {0}: run as that user")]
    WrongOwner(u32),
    /// A record is not what was written.
    #[error("damaged record: {0}")]
    Corrupt(String),
    /// A binary of another version wrote it.
    #[error("the store has layout version {found}, this version reads {expected}: {}", advice(*found))]
    Version {
        /// The version of the store.
        found: u8,
        /// The version of this binary.
        expected: u8,
    },
    /// `gjallar store rebase` was interrupted.
    #[error("`gjallar store rebase` was interrupted: run it again")]
    Rebase,
    /// The store was closed, or the disk or its software failed.
    #[error("{0}")]
    Failed(String),
}

/// What to do with a store of another version.
fn advice(found: u8) -> &'static str {
    match found {
        // Before there was a way to export; no release had it.
        1 => "this layout cannot be read any more: create a new store",
        _ => "export it with a version that reads it, then import the archive into a new store",
    }
}
