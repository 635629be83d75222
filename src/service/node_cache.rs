//! Bounded cache of nodes, loaded on demand. The guard of a node is its lock: only its holder decides operations at the
//! node.
//!
//! A cached node contains the changes of its newest commit, which may not be on disk yet. Decisions are based on that
//! commit; replies that show its changes wait until it is durable.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use jid::BareJid;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

use crate::store::{CommitChain, Store, StoreError};
use gjallar_pubsub::{
    Change, Changes, Epoch, Item, LogEntry, Node, NodeId, Recipients, Sequence, op::auto_subscribe,
};

use super::{event_log::recipient_lists::SharedLists, pending_commits::PendingCommits};

/// Maximum size of an item that is cached as the newest of its node ([`Item::size`]).
const MAX_LAST_ITEM_BYTES: usize = 4096;
/// Maximum number of nodes that are examined for eviction when a node is inserted.
const MAX_EXAMINED: usize = 16;
/// Maximum number of nodes that are evicted when a node is inserted.
const MAX_EVICTED: usize = 2;
/// Maximum number of uncertain nodes (nodes whose last commit has an unknown outcome) that are reloaded together.
const MAX_RELOADED: usize = 64;

/// The nodes that are in memory.
#[derive(Debug)]
pub(super) struct NodeCache {
    max: usize,
    reads: Counter,
    cells: Mutex<Cells>,
    /// Nodes with a corrupt record, quarantined until the process ends.
    quarantined: Mutex<HashSet<NodeId>>,
    /// Nodes whose last commit failed and that have to be reloaded.
    uncertain: Mutex<VecDeque<NodeId>>,
    marked_uncertain: Notify,
    /// Corrupt records whose node is unknown.
    corrupt_records: Mutex<HashSet<String>>,
}

/// Cache slots and their eviction order (clock algorithm). A slot that was used since its last examination is not
/// evicted.
#[derive(Debug, Default)]
struct Cells {
    all: HashMap<NodeId, Slot>,
    /// Eviction order, with each cached node once.
    order: VecDeque<NodeId>,
}

#[derive(Debug)]
struct Slot {
    cell: Arc<AsyncMutex<CacheSlot>>,
    was_used: bool,
}

#[derive(Debug, Default)]
struct CacheSlot {
    content: SlotContent,
    pending_commits: Arc<PendingCommits>,
}

/// Cached content of a node.
#[derive(Debug, Default)]
enum SlotContent {
    /// Content has to be read.
    #[default]
    Nothing,
    /// The node does not exist.
    Absent,
    Present(Box<CachedNode>),
}

#[derive(Debug)]
struct CachedNode {
    node: Node,
    /// All subscribers; computed when first needed after a change.
    recipients: Option<Recipients>,
    /// Pointer that identifies the access rules; replaced when one of the rules changes.
    access: Arc<()>,
    /// Recipient lists of pending notifications.
    lists: SharedLists,
    last: LastItem,
}

/// Newest item of a node.
#[derive(Clone, Debug, Default)]
pub(super) enum LastItem {
    /// The item has to be read.
    #[default]
    Unread,
    None,
    Item(Arc<Item>),
}

/// Creator of a node before a commit with an unknown outcome; `None` if there was no node.
#[derive(Debug)]
pub(super) struct PreviousCreator(pub(super) Option<BareJid>);

/// Lock of a node while an operation is decided.
#[derive(Debug)]
pub(super) struct NodeGuard {
    cell: OwnedMutexGuard<CacheSlot>,
}

impl NodeCache {
    /// Creates a cache for at most `max` nodes, apart from nodes in use. `reads` counts nodes read from the store.
    pub(super) fn new(max: usize, reads: Counter) -> Self {
        Self {
            max,
            reads,
            cells: Mutex::default(),
            quarantined: Mutex::default(),
            uncertain: Mutex::default(),
            marked_uncertain: Notify::new(),
            corrupt_records: Mutex::default(),
        }
    }

    /// Quarantines a node. Returns `true` if it was not quarantined before.
    pub(super) fn quarantine(&self, id: &NodeId) -> bool {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }

    /// Marks a node whose last commit has an unknown outcome.
    pub(super) fn mark_uncertain(&self, id: &NodeId) {
        let mut nodes = self.uncertain.lock().unwrap_or_else(PoisonError::into_inner);
        if !nodes.contains(id) {
            nodes.push_back(id.clone());
        }
        drop(nodes);
        self.marked_uncertain.notify_one();
    }

    /// Waits for uncertain nodes, removes at least one and at most [`MAX_RELOADED`] of them from the queue and returns
    /// them. Another task may have reloaded a returned node already.
    pub(super) async fn next_uncertain(&self) -> Vec<NodeId> {
        loop {
            let first: Vec<_> = {
                let mut nodes = self.uncertain.lock().unwrap_or_else(PoisonError::into_inner);
                let some = nodes.len().min(MAX_RELOADED);
                nodes.drain(..some).collect()
            };
            if !first.is_empty() {
                return first;
            }
            self.marked_uncertain.notified().await;
        }
    }

    /// Records a corrupt record. Returns `true` if it was not recorded before.
    pub(super) fn record_corruption(&self, record: &str) -> bool {
        let mut noted = self.corrupt_records.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert(record.to_owned())
    }

    pub(super) fn is_quarantined(&self, id: &NodeId) -> bool {
        self.quarantined.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Returns the number of cached nodes.
    pub(super) fn len(&self) -> usize {
        self.cells().all.len()
    }

    /// Returns the cached nodes, each with the sequence of its newest event.
    pub(super) async fn node_sequences(&self) -> Vec<(NodeId, Epoch, Sequence)> {
        let cells: Vec<_> = self.cells().all.values().map(|slot| Arc::clone(&slot.cell)).collect();
        let mut sequences = Vec::with_capacity(cells.len());
        for cell in cells {
            if let SlotContent::Present(cached) = &cell.lock().await.content {
                sequences.push((cached.node.id.clone(), cached.node.epoch, cached.node.sequence));
            }
        }
        sequences
    }

    /// Locks a node, and reads it if it is not cached. After a failed commit also returns the creator before that
    /// commit; the caller then has to call [`reset_chain`](NodeGuard::reset_chain).
    pub(super) async fn lock(
        &self,
        id: &NodeId,
        store: &dyn Store,
    ) -> Result<(NodeGuard, Option<PreviousCreator>), StoreError> {
        let mut cell = self.cell(id).lock_owned().await;
        let is_broken = cell.pending_commits.is_broken();
        if is_broken {
            cell.pending_commits.wait_committed().await;
            cell.content = SlotContent::Nothing;
        }
        let before = is_broken.then(|| PreviousCreator(cell.pending_commits.creator()));
        let is_unread = matches!(cell.content, SlotContent::Nothing);
        if is_unread {
            self.reads.inc();
            cell.content = match store.node(id).await? {
                Some(node) => SlotContent::present(node),
                None => SlotContent::Absent,
            };
        }
        let mut guard = NodeGuard { cell };
        if is_unread && !is_broken {
            guard.reset_chain();
        }
        Ok((guard, before))
    }

    fn cell(&self, id: &NodeId) -> Arc<AsyncMutex<CacheSlot>> {
        let mut cells = self.cells();
        if let Some(slot) = cells.all.get_mut(id) {
            slot.was_used = true;
            return Arc::clone(&slot.cell);
        }
        cells.evict(self.max);
        let cell = Arc::default();
        let slot = Slot { cell: Arc::clone(&cell), was_used: false };
        cells.all.insert(id.clone(), slot);
        cells.order.push_back(id.clone());
        cell
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cells {
    /// Evicts unused nodes before a node is inserted. At most [`MAX_EXAMINED`] nodes are examined; if all of them are
    /// in use, the cache exceeds `max` for a while. Each later call evicts up to [`MAX_EVICTED`] nodes.
    fn evict(&mut self, max: usize) {
        let mut retained = Vec::with_capacity(MAX_EXAMINED);
        let mut evicted = 0;
        while self.all.len() >= max
            && evicted < MAX_EVICTED
            && retained.len() < MAX_EXAMINED
            && let Some(id) = self.order.pop_front()
        {
            let Some(slot) = self.all.get_mut(&id) else { continue };
            if std::mem::take(&mut slot.was_used) || !slot.is_idle() {
                retained.push(id);
            } else {
                self.all.remove(&id);
                evicted += 1;
            }
        }
        // All unused nodes were requested since the last examination: the first is evicted.
        let is_idle = |id: &NodeId| self.all.get(id).is_some_and(Slot::is_idle);
        if evicted == 0
            && self.all.len() >= max
            && let Some(first) = retained.iter().position(is_idle)
        {
            self.all.remove(&retained.remove(first));
        }
        self.order.extend(retained);
    }
}

impl Slot {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.cell) == 1 && self.cell.try_lock().is_ok_and(|cell| cell.is_idle())
    }
}

impl NodeGuard {
    /// Returns the node, or `None` if it does not exist.
    pub(super) fn node(&self) -> Option<&Node> {
        self.cached().map(|cached| &cached.node)
    }

    fn cached(&self) -> Option<&CachedNode> {
        match &self.cell.content {
            SlotContent::Present(cached) => Some(cached),
            SlotContent::Nothing | SlotContent::Absent => None,
        }
    }

    /// Returns the newest item, or [`LastItem::Unread`] if it has to be read.
    pub(super) fn last(&self) -> LastItem {
        self.cached().map_or(LastItem::None, |cached| cached.last.clone())
    }

    /// Caches the newest item after it was read.
    pub(super) fn set_last(&mut self, item: Option<&Arc<Item>>) {
        if let SlotContent::Present(cached) = &mut self.cell.content {
            cached.last = item.map_or(LastItem::None, LastItem::of);
        }
    }

    /// Applies changes to the cached node before they are on disk. The caller has to submit the commit of the changes
    /// without delay.
    pub(super) fn apply(&mut self, changes: &Changes) -> CommitChain {
        self.cell.content = std::mem::take(&mut self.cell.content).with(changes);
        self.cell.pending_commits.begin(changes)
    }

    /// Returns the pending commits of the node.
    pub(super) fn pending_commits(&self) -> Arc<PendingCommits> {
        Arc::clone(&self.cell.pending_commits)
    }

    /// Waits until all pending commits of the node are durable. Returns `false` if one of them failed: then the guard
    /// must not be used.
    pub(super) async fn wait_committed(&self) -> bool {
        self.cell.pending_commits.wait_committed().await
    }

    /// Starts a new commit chain after the node was read.
    pub(super) fn reset_chain(&mut self) {
        let creator = self.node().map(|node| node.creator.clone());
        self.cell.pending_commits.reset(creator);
    }

    /// Returns all subscribers.
    pub(super) fn recipients(&mut self) -> Recipients {
        match &mut self.cell.content {
            SlotContent::Present(cached) => {
                let CachedNode { node, recipients, .. } = &mut **cached;
                recipients.get_or_insert_with(|| node.recipients()).clone()
            }
            SlotContent::Nothing | SlotContent::Absent => Recipients::default(),
        }
    }

    /// Returns a pointer that identifies the access rules of the node. The pointer is replaced when one of the rules
    /// changes.
    pub(super) fn access(&self) -> Weak<()> {
        self.cached().map_or_else(Weak::new, |cached| Arc::downgrade(&cached.access))
    }

    /// Makes log entries share the recipient lists of the node's pending notifications, where the lists are equal. This
    /// saves memory.
    pub(super) fn share_lists(&mut self, notifications: &mut [LogEntry]) {
        if let SlotContent::Present(cached) = &mut self.cell.content {
            cached.lists.share(notifications);
        }
    }
}

impl CacheSlot {
    /// Returns `true` if the slot may be evicted.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.pending_commits) == 1 && !self.pending_commits.is_broken()
    }
}

impl SlotContent {
    fn present(node: Node) -> Self {
        Self::Present(Box::new(CachedNode {
            node,
            recipients: None,
            access: Arc::default(),
            lists: SharedLists::default(),
            last: LastItem::Unread,
        }))
    }

    fn with(self, changes: &Changes) -> Self {
        let mut content = self;
        for change in changes.iter() {
            if let Change::Created(node) = change {
                content = Self::present((**node).clone());
            }
        }
        let Self::Present(mut cached) = content else { return Self::Absent };
        for change in changes.iter() {
            match change {
                Change::Created(_) | Change::Purged => cached.last = LastItem::None,
                Change::Published(item) => cached.last = LastItem::of(item),
                Change::ItemsEvicted { keep: 0, .. } => cached.last = LastItem::None,
                Change::Retracted(_) => cached.last = LastItem::Unread,
                Change::SubscriptionOptionsSet(..)
                | Change::Subscribed(_)
                | Change::SubscribedByOwner(_)
                | Change::Unsubscribed(_) => {
                    cached.recipients = None;
                }
                Change::Configured(_)
                | Change::Revised(_)
                | Change::AffiliationSet(..)
                | Change::SubscriptionRequested(_)
                | Change::ItemsEvicted { .. } => {}
                Change::Deleted { .. } => return Self::Absent,
            }
        }
        if auto_subscribe::change_access(changes) {
            cached.access = Arc::default();
        }
        cached.node.apply(changes);
        Self::Present(cached)
    }
}

impl LastItem {
    fn of(item: &Arc<Item>) -> Self {
        if item.size() > MAX_LAST_ITEM_BYTES { Self::Unread } else { Self::Item(Arc::clone(item)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> NodeId {
        NodeId::parse(&number.to_string()).unwrap()
    }

    fn has(nodes: &NodeCache, number: usize) -> bool {
        nodes.cells().all.contains_key(&id(number))
    }

    #[test]
    fn least_recently_used_node_is_evicted() {
        let nodes = NodeCache::new(4, Counter::default());
        for number in [0, 1, 2, 3, 0, 2] {
            drop(nodes.cell(&id(number)));
        }
        drop(nodes.cell(&id(4)));
        assert!(!has(&nodes, 1) && has(&nodes, 0) && has(&nodes, 2) && has(&nodes, 3));
        drop(nodes.cell(&id(5)));
        assert!(!has(&nodes, 3) && has(&nodes, 0) && has(&nodes, 2) && has(&nodes, 4));
        assert_eq!(nodes.len(), 4);
        // All nodes were requested: one is evicted nevertheless.
        for number in [0, 2, 4, 5, 6] {
            drop(nodes.cell(&id(number)));
        }
        assert_eq!(nodes.len(), 4);
    }

    #[test]
    fn nodes_in_use_are_not_evicted_before_their_release() {
        let nodes = NodeCache::new(100, Counter::default());
        let mut held: Vec<_> = (0..200).map(|number| nodes.cell(&id(number))).collect();
        assert_eq!(nodes.len(), 200);
        held.truncate(50);
        for number in 200..400 {
            drop(nodes.cell(&id(number)));
        }
        assert!(nodes.len() <= 100, "{}", nodes.len());
        assert!((0..50).all(|number| has(&nodes, number)));
        let cells = nodes.cells();
        assert_eq!(cells.order.len(), cells.all.len());
    }
}
