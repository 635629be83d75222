//! State of the committer in memory: the next node number and log position, the pending log entries by node, and the
//! garbage to remove.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::deleted_nodes::FormerShares;
use gjallar_pubsub::LogEntry;

use super::{
    keys::{ItemPosition, NodeNumber},
    log_entry_record::{AudienceRecords, LogEntryRecord},
    recovery::LogRow,
    revoked_resources::{Revoked, RevokedRecord},
};

pub(super) struct Ledger {
    pub(super) next_node: NodeNumber,
    pub(super) next_position: u64,
    /// Number of deleted nodes with a redirect.
    pub(super) redirects: usize,
    /// Number of recorded deleted nodes without a redirect.
    pub(super) former: usize,
    /// For each account, the records of deleted nodes that count against its limits. The store's readers share this
    /// value.
    shares: Arc<Mutex<FormerShares>>,
    nodes: BTreeMap<u64, NodeNumber>,
    pending: HashMap<NodeNumber, usize>,
    /// Groups of log entries that share rows, by the position of the first entry.
    groups: BTreeMap<u64, PendingGroup>,
    /// Log entries of the current group of commits.
    new_entries: Vec<(u64, LogEntryRecord)>,
    /// Recipient lists of the new log entries.
    new_audiences: AudienceRecords,
    /// Resources that lost implicit subscriptions, by node.
    revoked: HashMap<NodeNumber, Revoked>,
    /// Cache, by node: a lower bound for the positions of the node's items.
    oldest_items: HashMap<NodeNumber, ItemPosition>,
    /// Deleted nodes whose subscribers are kept until the pending log entries are acknowledged.
    awaiting_acks: HashSet<NodeNumber>,
    /// Nodes that lost many subscriptions in one commit, and still have rows of these subscriptions.
    revoking: BTreeSet<NodeNumber>,
    /// For nodes that still have rows of removed items, the position of the oldest existing item. Rows of items before
    /// this position are garbage.
    first_items: BTreeMap<NodeNumber, ItemPosition>,
    /// Deleted nodes without pending log entries, with rows left to remove.
    removable: BTreeSet<NodeNumber>,
}

/// Group of log entries that were written together and share rows.
#[derive(Clone, Copy)]
struct PendingGroup {
    /// Number of entries that are not acknowledged.
    pending: usize,
    rows: u16,
    /// Bit set of the acknowledged entries ([`bit`]).
    acked: u64,
}

/// Row change that an acknowledgement requires.
pub(super) enum AckWrite {
    /// All entries of the group are acknowledged: remove its rows. `first` is the position of the first entry.
    Group { first: u64, rows: u16 },
    /// Some entries of the group are acknowledged: write the bit set of these entries.
    Bits { first: u64, acked: u64 },
}

/// Maximum number of log entries that share rows.
pub(super) const MAX_GROUP_ENTRIES: usize = 64;

/// A group of log entries that has this number of bytes takes no further entry. Its last entry may exceed the limit by
/// about 40 MB, the maximum size of one entry, so the number of rows is bounded.
pub(super) const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Bit of a log entry in its group.
pub(super) fn bit(first: u64, position: u64) -> u64 {
    const { assert!(MAX_GROUP_ENTRIES <= 64) };
    1_u64.checked_shl(u32::try_from(position - first).unwrap_or(u32::MAX)).unwrap_or_default()
}

/// Maximum number of nodes with a cached lower bound for the positions of their items.
const MAX_OLDEST_ITEMS: usize = 10_000;

/// Pending task of the garbage collection.
#[derive(Clone, Copy, Debug)]
pub(super) enum GcTask {
    /// Rows of the subscriptions that a node lost in one large commit.
    Subscriptions(NodeNumber),
    /// Rows of a node's items before a position.
    Items(NodeNumber, ItemPosition),
    /// All rows of a deleted node except its items.
    Node(NodeNumber),
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            next_node: NodeNumber(1),
            next_position: 1,
            redirects: 0,
            former: 0,
            shares: Arc::default(),
            nodes: BTreeMap::new(),
            pending: HashMap::new(),
            groups: BTreeMap::new(),
            new_entries: Vec::new(),
            new_audiences: AudienceRecords::default(),
            revoked: HashMap::new(),
            oldest_items: HashMap::new(),
            awaiting_acks: HashSet::new(),
            revoking: BTreeSet::new(),
            first_items: BTreeMap::new(),
            removable: BTreeSet::new(),
        }
    }
}

impl Ledger {
    pub(super) fn shares(&self) -> MutexGuard<'_, FormerShares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shared_shares(&self) -> Arc<Mutex<FormerShares>> {
        Arc::clone(&self.shares)
    }

    /// Adds a log entry, to be written with the other entries of its group of commits; returns its position.
    pub(super) fn append(&mut self, node: NodeNumber, notification: &LogEntry) -> u64 {
        let position = self.next_position;
        self.next_position += 1;
        self.nodes.insert(position, node);
        *self.pending.entry(node).or_default() += 1;
        let record = LogEntryRecord::of(node, notification, &mut self.new_audiences);
        self.new_entries.push((position, record));
        position
    }

    /// Takes the log entries that are not written yet.
    pub(super) fn take_new_entries(&mut self) -> Vec<(u64, LogEntryRecord)> {
        self.new_audiences = AudienceRecords::default();
        std::mem::take(&mut self.new_entries)
    }

    /// Adds a group of log entries read from the store.
    pub(super) fn load(&mut self, group: &LogRow) {
        let LogRow { first, total, rows, acked, pending } = group;
        self.next_position = self.next_position.max(first + total);
        for (position, record) in pending {
            self.next_node = self.next_node.max(record.number().next());
            self.nodes.insert(*position, record.number());
            *self.pending.entry(record.number()).or_default() += 1;
        }
        let group = PendingGroup { pending: pending.len(), rows: *rows, acked: *acked };
        self.groups.insert(*first, group);
    }

    /// Records that a group of log entries was written, in this many rows.
    pub(super) fn record_written(&mut self, first: u64, pending: usize, rows: u16) {
        self.groups.insert(first, PendingGroup { pending, rows, acked: 0 });
    }

    /// Schedules the removal of a deleted node. The removal begins when no log entry of the node is pending.
    pub(super) fn schedule_node_gc(&mut self, node: NodeNumber) {
        if self.pending.contains_key(&node) {
            self.awaiting_acks.insert(node);
        } else {
            self.removable.insert(node);
        }
    }

    /// Returns `true` if log entries of a node are pending.
    pub(super) fn has_pending(&self, node: NodeNumber) -> bool {
        self.pending.contains_key(&node)
    }

    /// Returns the node of a pending log entry.
    pub(super) fn node_of(&self, position: u64) -> Option<NodeNumber> {
        self.nodes.get(&position).copied()
    }

    /// Returns the position of the oldest pending log entry, or the next position if none is pending.
    pub(super) fn oldest_pending(&self) -> u64 {
        self.nodes.keys().next().copied().unwrap_or(self.next_position)
    }

    /// Returns the resources that lost implicit subscriptions to a node.
    pub(super) fn revoked(&self, node: NodeNumber) -> Option<&Revoked> {
        self.revoked.get(&node)
    }

    pub(super) fn take_revoked(&mut self, node: NodeNumber) -> Option<Revoked> {
        self.revoked.remove(&node)
    }

    pub(super) fn set_revoked(&mut self, node: NodeNumber, revoked: Revoked) {
        self.revoked.insert(node, revoked);
    }

    pub(super) fn load_revoked(&mut self, node: NodeNumber, record: RevokedRecord) {
        self.revoked.entry(node).or_default().load(record);
    }

    /// Schedules the removal of the rows of the subscriptions that a node lost in one large commit.
    pub(super) fn schedule_subscription_gc(&mut self, node: NodeNumber) {
        self.revoking.insert(node);
    }

    /// Returns `true` if this node lost many subscriptions in one commit, and still has rows of these subscriptions.
    pub(super) fn is_revoking_at(&self, node: NodeNumber) -> bool {
        self.revoking.contains(&node)
    }

    /// Returns `true` if any node lost many subscriptions in one commit, and still has rows of these subscriptions.
    pub(super) fn is_revoking(&self) -> bool {
        !self.revoking.is_empty()
    }

    /// Records the position of a node's oldest existing item, and schedules the removal of the rows of items before
    /// this position.
    pub(super) fn begin_items(&mut self, node: NodeNumber, first: ItemPosition) {
        self.first_items.insert(node, first);
    }

    /// Removes a pending log entry, and returns the row change that the removal requires. If the entry was the last
    /// pending entry of a deleted node, the node becomes ready for removal. Returns `None` if the entry is not pending.
    pub(super) fn acknowledge(&mut self, position: u64) -> Option<AckWrite> {
        let node = self.nodes.remove(&position)?;
        if let Some(left) = self.pending.get_mut(&node) {
            *left -= 1;
            if *left == 0 {
                self.pending.remove(&node);
                if self.awaiting_acks.remove(&node) {
                    self.removable.insert(node);
                }
            }
        }
        let (first, group) = self.groups.range_mut(..=position).next_back()?;
        let first = *first;
        group.pending -= 1;
        group.acked |= bit(first, position);
        let PendingGroup { pending, rows, acked } = *group;
        if pending > 0 {
            return Some(AckWrite::Bits { first, acked });
        }
        self.groups.remove(&first);
        Some(AckWrite::Group { first, rows })
    }

    /// Returns a lower bound for the positions of a node's items.
    pub(super) fn oldest_item(&self, node: NodeNumber) -> ItemPosition {
        self.oldest_items.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn note_oldest_item(&mut self, node: NodeNumber, position: ItemPosition) {
        if self.oldest_items.len() >= MAX_OLDEST_ITEMS {
            self.oldest_items.clear();
        }
        self.oldest_items.insert(node, position);
    }

    /// Returns the next task. Subscriptions are removed first, because commits wait for their removal. Items are
    /// removed before deleted nodes, because removing an item updates the counters of its node, and removing the node
    /// deletes these counters.
    pub(super) fn next_gc_task(&self) -> Option<GcTask> {
        let subscriptions = self.revoking.first().map(|node| GcTask::Subscriptions(*node));
        let items = self.first_items.first_key_value();
        let items = items.map(|(node, first)| GcTask::Items(*node, *first));
        let node = self.removable.first().map(|node| GcTask::Node(*node));
        subscriptions.or(items).or(node)
    }

    /// Removes a task that is complete or has failed.
    pub(super) fn finish_gc_task(&mut self, remains: GcTask) {
        match remains {
            GcTask::Subscriptions(node) => drop(self.revoking.remove(&node)),
            GcTask::Items(node, _) => drop(self.first_items.remove(&node)),
            GcTask::Node(node) => drop(self.removable.remove(&node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use jid::Jid;

    use super::*;
    use crate::store::sled::log_entry_record::take_together;
    use gjallar_pubsub::{
        Audience, DeliveryVariant, Epoch, Event, EventId, NodeId, NotificationType, Recipients,
        Sequence, Timestamp,
    };

    /// If log entries that are written together share a recipient list, it is stored only once.
    #[test]
    fn commits_share_lists_on_disk() {
        let jid = |number| Jid::new(&format!("{number}@far.example/phone")).unwrap();
        let list: Recipients = (0..1000).map(jid).collect();
        let notification = LogEntry {
            node: NodeId::parse("n").unwrap(),
            event_id: EventId { epoch: Epoch(1), sequence: Sequence(1) },
            index: 0,
            event: Event::Purged,
            audience: Audience::Interested(list.clone()),
            as_of: 1,
            variant: DeliveryVariant::default(),
            notification_type: NotificationType::Normal,
            occurred_at: Timestamp(0),
            nonce: None,
        };
        let mut ledger = Ledger::default();
        for _ in 0..MAX_GROUP_ENTRIES {
            ledger.append(NodeNumber(1), &notification);
        }
        let mut entries = ledger.take_new_entries();
        assert_eq!(
            take_together(&mut entries, MAX_GROUP_ENTRIES, MAX_GROUP_BYTES),
            MAX_GROUP_ENTRIES
        );
        let bytes: usize = entries.iter().map(|(_, record)| record.len()).sum();
        assert!(bytes < 2 * list.iter().map(|jid| 3 + jid.as_str().len()).sum::<usize>());
    }
}
