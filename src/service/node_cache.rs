//! Hot nodes: those in memory, loaded on demand, bounded. A node's lock is its turn: who holds it is
//! the only one who decides there.
//!
//! A node in memory is as its newest commit makes it, which may still be on its way to the disk. What is
//! decided on it rests on that commit; what is shown of it waits until it is settled.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use jid::BareJid;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Mutex as TurnMutex, Notify, OwnedMutexGuard};

use crate::store::{CommitChain, Store, StoreError};
use gjallar_pubsub::{
    Change, Changes, Epoch, Item, LogEntry, Node, NodeId, Recipients, Sequence, op::auto_subscribe,
};

use super::{event_log::recipient_lists::SharedLists, pending_commits::PendingCommits};

/// The largest item that is kept in memory as the newest of its node ([`Item::size`]).
const MAX_LAST_ITEM_BYTES: usize = 4096;
/// Nodes that are looked at, and those that are evicted, to make room for one.
const MAX_LOOKED_AT: usize = 16;
const MAX_EVICTED: usize = 2;
/// The most nodes in doubt that are looked at together.
const MAX_IN_DOUBT: usize = 64;

/// The nodes that are in memory.
#[derive(Debug)]
pub(super) struct NodeCache {
    max: usize,
    reads: Counter,
    cells: Mutex<Cells>,
    /// Those of which something is damaged, until the process ends.
    closed: Mutex<HashSet<NodeId>>,
    /// Those whose last commit failed, and that nobody has looked at since.
    in_doubt: Mutex<VecDeque<NodeId>>,
    doubts: Notify,
    /// Damaged records of which nobody knows the node.
    of_no_node: Mutex<HashSet<String>>,
}

/// Cells, and the order in which they are looked at for eviction: those that were asked for since they were looked at
/// last are kept another time (the clock algorithm).
#[derive(Debug, Default)]
struct Cells {
    all: HashMap<NodeId, Slot>,
    /// Each of them once.
    order: VecDeque<NodeId>,
}

#[derive(Debug)]
struct Slot {
    cell: Arc<TurnMutex<CacheSlot>>,
    was_asked_for: bool,
}

#[derive(Debug, Default)]
struct CacheSlot {
    known: SlotContent,
    underway: Arc<PendingCommits>,
}

/// What is known of a node.
#[derive(Debug, Default)]
enum SlotContent {
    /// Nothing: it has to be read.
    #[default]
    Nothing,
    /// There is no such node.
    Absent,
    There(Box<CachedNode>),
}

#[derive(Debug)]
struct CachedNode {
    node: Node,
    /// Everyone subscribed; made when first needed after a change.
    recipients: Option<Recipients>,
    /// Replaced when access rules change.
    access: Arc<()>,
    /// Recipient lists of pending notifications.
    lists: SharedLists,
    last: LastItem,
}

/// The newest item of a node.
#[derive(Clone, Debug, Default)]
pub(super) enum LastItem {
    /// It has to be read.
    #[default]
    Unread,
    None,
    Item(Arc<Item>),
}

/// Whose a node was before a commit of which nobody knows whether it happened.
#[derive(Debug)]
pub(super) struct PreviousCreator(pub(super) Option<BareJid>);

/// A node's turn.
#[derive(Debug)]
pub(super) struct NodeGuard {
    cell: OwnedMutexGuard<CacheSlot>,
}

impl NodeCache {
    /// Keeps at most `max` nodes that nobody is working at, and counts those that are read.
    pub(super) fn new(max: usize, reads: Counter) -> Self {
        Self {
            max,
            reads,
            cells: Mutex::default(),
            closed: Mutex::default(),
            in_doubt: Mutex::default(),
            doubts: Notify::new(),
            of_no_node: Mutex::default(),
        }
    }

    /// Closes a node; whether it was not closed before.
    pub(super) fn quarantine(&self, id: &NodeId) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }

    /// What became of a node's last commit is not known.
    pub(super) fn mark_uncertain(&self, id: &NodeId) {
        let mut nodes = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if !nodes.contains(id) {
            nodes.push_back(id.clone());
        }
        drop(nodes);
        self.doubts.notify_one();
    }

    /// Waits for nodes that are in doubt, or were: some of them, at least one.
    pub(super) async fn next_uncertain(&self) -> Vec<NodeId> {
        loop {
            let first: Vec<_> = {
                let mut nodes = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
                let some = nodes.len().min(MAX_IN_DOUBT);
                nodes.drain(..some).collect()
            };
            if !first.is_empty() {
                return first;
            }
            self.doubts.notified().await;
        }
    }

    /// Notes a record; whether it was not noted before.
    pub(super) fn record_corruption(&self, record: &str) -> bool {
        let mut noted = self.of_no_node.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert(record.to_owned())
    }

    pub(super) fn is_quarantined(&self, id: &NodeId) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// How many are in memory.
    pub(super) fn len(&self) -> usize {
        self.cells().all.len()
    }

    /// Nodes in memory, each with the sequence of its newest event.
    pub(super) async fn node_sequences(&self) -> Vec<(NodeId, Epoch, Sequence)> {
        let cells: Vec<_> = self.cells().all.values().map(|slot| Arc::clone(&slot.cell)).collect();
        let mut sequences = Vec::with_capacity(cells.len());
        for cell in cells {
            if let SlotContent::There(hot) = &cell.lock().await.known {
                sequences.push((hot.node.id.clone(), hot.node.epoch, hot.node.sequence));
            }
        }
        sequences
    }

    /// Waits for a node's turn, and reads the node if it is not in memory. If that was because a commit
    /// failed, whose it was before is given too, and the turn is to be [trusted](Turn::trust).
    pub(super) async fn lock(
        &self,
        id: &NodeId,
        store: &dyn Store,
    ) -> Result<(NodeGuard, Option<PreviousCreator>), StoreError> {
        let mut cell = self.cell(id).lock_owned().await;
        let is_broken = cell.underway.is_broken();
        if is_broken {
            cell.underway.wait_committed().await;
            cell.known = SlotContent::Nothing;
        }
        let before = is_broken.then(|| PreviousCreator(cell.underway.creator()));
        let is_unread = matches!(cell.known, SlotContent::Nothing);
        if is_unread {
            self.reads.inc();
            cell.known = match store.node(id).await? {
                Some(node) => SlotContent::there(node),
                None => SlotContent::Absent,
            };
        }
        let mut turn = NodeGuard { cell };
        if is_unread && !is_broken {
            turn.reset_chain();
        }
        Ok((turn, before))
    }

    fn cell(&self, id: &NodeId) -> Arc<TurnMutex<CacheSlot>> {
        let mut cells = self.cells();
        if let Some(slot) = cells.all.get_mut(id) {
            slot.was_asked_for = true;
            return Arc::clone(&slot.cell);
        }
        cells.evict(self.max);
        let cell = Arc::default();
        let slot = Slot { cell: Arc::clone(&cell), was_asked_for: false };
        cells.all.insert(id.clone(), slot);
        cells.order.push_back(id.clone());
        cell
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cells {
    /// Makes room for one more by evicting nodes that nobody is working at. Few are looked at, and if all of these are in
    /// use there are more than `max` for a while; later calls evict two.
    fn evict(&mut self, max: usize) {
        let mut kept = Vec::with_capacity(MAX_LOOKED_AT);
        let mut evicted = 0;
        while self.all.len() >= max
            && evicted < MAX_EVICTED
            && kept.len() < MAX_LOOKED_AT
            && let Some(id) = self.order.pop_front()
        {
            let Some(slot) = self.all.get_mut(&id) else { continue };
            if std::mem::take(&mut slot.was_asked_for) || !slot.is_idle() {
                kept.push(id);
            } else {
                self.all.remove(&id);
                evicted += 1;
            }
        }
        // All that are idle were asked for: the first of them goes.
        let is_idle = |id: &NodeId| self.all.get(id).is_some_and(Slot::is_idle);
        if evicted == 0
            && self.all.len() >= max
            && let Some(first) = kept.iter().position(is_idle)
        {
            self.all.remove(&kept.remove(first));
        }
        self.order.extend(kept);
    }
}

impl Slot {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.cell) == 1 && self.cell.try_lock().is_ok_and(|cell| cell.is_idle())
    }
}

impl NodeGuard {
    /// The node, if there is one.
    pub(super) fn node(&self) -> Option<&Node> {
        self.hot().map(|hot| &hot.node)
    }

    fn hot(&self) -> Option<&CachedNode> {
        match &self.cell.known {
            SlotContent::There(hot) => Some(hot),
            SlotContent::Nothing | SlotContent::Absent => None,
        }
    }

    /// The newest item, or that it has to be read.
    pub(super) fn last(&self) -> LastItem {
        self.hot().map_or(LastItem::None, |hot| hot.last.clone())
    }

    /// The newest item was read.
    pub(super) fn set_last(&mut self, item: Option<&Arc<Item>>) {
        if let SlotContent::There(hot) = &mut self.cell.known {
            hot.last = item.map_or(LastItem::None, LastItem::of);
        }
    }

    /// Makes changes true in memory, ahead of the disk. To be followed by their commit at once.
    pub(super) fn apply(&mut self, changes: &Changes) -> CommitChain {
        self.cell.known = std::mem::take(&mut self.cell.known).with(changes);
        self.cell.underway.begin(changes)
    }

    /// The node's commits that are on their way.
    pub(super) fn underway(&self) -> Arc<PendingCommits> {
        Arc::clone(&self.cell.underway)
    }

    /// Waits until all that is known here is true. If that is not so the turn is of no use any more.
    pub(super) async fn wait_committed(&self) -> bool {
        self.cell.underway.wait_committed().await
    }

    /// What was read is what there is.
    pub(super) fn reset_chain(&mut self) {
        let creator = self.node().map(|node| node.creator.clone());
        self.cell.underway.reset(creator);
    }

    /// Everyone who is subscribed.
    pub(super) fn recipients(&mut self) -> Recipients {
        match &mut self.cell.known {
            SlotContent::There(hot) => {
                let CachedNode { node, recipients, .. } = &mut **hot;
                recipients.get_or_insert_with(|| node.recipients()).clone()
            }
            SlotContent::Nothing | SlotContent::Absent => Recipients::default(),
        }
    }

    /// Identity of the access rules of the node, until one of them changes.
    pub(super) fn access(&self) -> Weak<()> {
        self.hot().map_or_else(Weak::new, |hot| Arc::downgrade(&hot.access))
    }

    /// Replaces the recipient lists of notifications by equal ones of pending notifications of the node.
    pub(super) fn share_lists(&mut self, notifications: &mut [LogEntry]) {
        if let SlotContent::There(hot) = &mut self.cell.known {
            hot.lists.share(notifications);
        }
    }
}

impl CacheSlot {
    /// Returns `true` if it may be forgotten.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.underway) == 1 && !self.underway.is_broken()
    }
}

impl SlotContent {
    fn there(node: Node) -> Self {
        Self::There(Box::new(CachedNode {
            node,
            recipients: None,
            access: Arc::default(),
            lists: SharedLists::default(),
            last: LastItem::Unread,
        }))
    }

    fn with(self, changes: &Changes) -> Self {
        let mut known = self;
        for change in changes.iter() {
            if let Change::Created(node) = change {
                known = Self::there((**node).clone());
            }
        }
        let Self::There(mut hot) = known else { return Self::Absent };
        for change in changes.iter() {
            match change {
                Change::Created(_) | Change::Purged => hot.last = LastItem::None,
                Change::Published(item) => hot.last = LastItem::of(item),
                Change::ItemsEvicted { keep: 0, .. } => hot.last = LastItem::None,
                Change::Retracted(_) => hot.last = LastItem::Unread,
                Change::SubscriptionOptionsSet(..)
                | Change::Subscribed(_)
                | Change::SubscribedByOwner(_)
                | Change::Unsubscribed(_) => {
                    hot.recipients = None;
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
            hot.access = Arc::default();
        }
        hot.node.apply(changes);
        Self::There(hot)
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
        // All were asked for: one goes all the same.
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
