//! What the committer keeps in mind: the numbers that come next, and what is owed at which node.

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
    pub(super) next_debt: u64,
    /// Deleted nodes of which it is known what took their place.
    pub(super) redirects: usize,
    /// Those of which it is not, and that are remembered.
    pub(super) former: usize,
    /// Both by the entities in whose shares they are; readers know it too.
    shares: Arc<Mutex<FormerShares>>,
    debts: BTreeMap<u64, NodeNumber>,
    owing: HashMap<NodeNumber, usize>,
    /// Debts that were made together, by the first of them.
    groups: BTreeMap<u64, Owing>,
    /// Those of the group of commits that is being made.
    new_debts: Vec<(u64, LogEntryRecord)>,
    /// Their recipient lists.
    new_audiences: AudienceRecords,
    /// Resources that lost implicit subscriptions to these nodes.
    revoked: HashMap<NodeNumber, Revoked>,
    /// Before it a node has no items.
    oldest_items: HashMap<NodeNumber, ItemPosition>,
    /// Deleted nodes whose subscribers are kept until they were told.
    dead: HashSet<NodeNumber>,
    /// Nodes that lost many subscriptions at once, and rows of these are left.
    revoking: BTreeSet<NodeNumber>,
    /// Where a node's items begin, and rows of others are left before.
    first_items: BTreeMap<NodeNumber, ItemPosition>,
    /// Deleted nodes at which nothing is owed, and rows are left.
    graves: BTreeSet<NodeNumber>,
}

/// Debts that were made together, and stand in the same rows.
#[derive(Clone, Copy)]
struct Owing {
    /// How many are not paid.
    debts: usize,
    rows: u16,
    /// Which are paid, a bit for each.
    paid: u64,
}

/// What is to be written when a debt is paid.
pub(super) enum Paid {
    /// All of the group, which begins with this one and has so many rows.
    All { first: u64, rows: u16 },
    /// Those of the group with these bits.
    Some { first: u64, paid: u64 },
}

/// The most debts that stand in the same rows.
pub(super) const MAX_DEBTS: usize = 64;

/// With more bytes than this no other joins them, so that their rows can be counted: one has some 40 MB at the most.
pub(super) const MAX_DEBTS_BYTES: usize = 16 * 1024 * 1024;

/// The bit of a debt in its group.
pub(super) fn bit(first: u64, debt: u64) -> u64 {
    const { assert!(MAX_DEBTS <= 64) };
    1_u64.checked_shl(u32::try_from(debt - first).unwrap_or(u32::MAX)).unwrap_or_default()
}

/// How many nodes it is remembered of where their items begin.
const MAX_OLDEST_ITEMS: usize = 10_000;

/// What has to be removed by and by.
#[derive(Clone, Copy, Debug)]
pub(super) enum GcTask {
    /// Subscriptions that a node lost at once.
    Subscriptions(NodeNumber),
    /// A node's items before a position and index.
    Items(NodeNumber, ItemPosition),
    /// All of a node but items.
    Node(NodeNumber),
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            next_node: NodeNumber(1),
            next_debt: 1,
            redirects: 0,
            former: 0,
            shares: Arc::default(),
            debts: BTreeMap::new(),
            owing: HashMap::new(),
            groups: BTreeMap::new(),
            new_debts: Vec::new(),
            new_audiences: AudienceRecords::default(),
            revoked: HashMap::new(),
            oldest_items: HashMap::new(),
            dead: HashSet::new(),
            revoking: BTreeSet::new(),
            first_items: BTreeMap::new(),
            graves: BTreeSet::new(),
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

    /// A debt is made; it is to be written with the others of its group of commits.
    pub(super) fn owe(&mut self, node: NodeNumber, notification: &LogEntry) -> u64 {
        let debt = self.next_debt;
        self.next_debt += 1;
        self.debts.insert(debt, node);
        *self.owing.entry(node).or_default() += 1;
        let record = LogEntryRecord::of(node, notification, &mut self.new_audiences);
        self.new_debts.push((debt, record));
        debt
    }

    /// The debts that are not written yet.
    pub(super) fn take_new_debts(&mut self) -> Vec<(u64, LogEntryRecord)> {
        self.new_audiences = AudienceRecords::default();
        std::mem::take(&mut self.new_debts)
    }

    /// Debts are in the store.
    pub(super) fn load(&mut self, group: &LogRow) {
        let LogRow { first, total, rows, paid, unpaid } = group;
        self.next_debt = self.next_debt.max(first + total);
        for (debt, record) in unpaid {
            self.next_node = self.next_node.max(record.number().next());
            self.debts.insert(*debt, record.number());
            *self.owing.entry(record.number()).or_default() += 1;
        }
        let owing = Owing { debts: unpaid.len(), rows: *rows, paid: *paid };
        self.groups.insert(*first, owing);
    }

    /// So many debts were written together, in so many rows.
    pub(super) fn wrote(&mut self, first: u64, debts: usize, rows: u16) {
        self.groups.insert(first, Owing { debts, rows, paid: 0 });
    }

    /// A node is deleted. What it owes is known.
    pub(super) fn schedule_node_gc(&mut self, node: NodeNumber) {
        if self.owing.contains_key(&node) {
            self.dead.insert(node);
        } else {
            self.graves.insert(node);
        }
    }

    /// Returns `true` if events of a node are pending.
    pub(super) fn owes_at(&self, node: NodeNumber) -> bool {
        self.owing.contains_key(&node)
    }

    /// The node of a debt.
    pub(super) fn node_of(&self, debt: u64) -> Option<NodeNumber> {
        self.debts.get(&debt).copied()
    }

    /// The oldest debt, or the next one if nothing is owed.
    pub(super) fn oldest_debt(&self) -> u64 {
        self.debts.keys().next().copied().unwrap_or(self.next_debt)
    }

    /// The resources that lost implicit subscriptions to a node.
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

    /// A node lost many subscriptions at once.
    pub(super) fn schedule_subscription_gc(&mut self, node: NodeNumber) {
        self.revoking.insert(node);
    }

    /// Returns `true` if rows are left of subscriptions that a node lost.
    pub(super) fn revokes_at(&self, node: NodeNumber) -> bool {
        self.revoking.contains(&node)
    }

    /// Returns `true` if rows are left of subscriptions that some node lost.
    pub(super) fn revokes(&self) -> bool {
        !self.revoking.is_empty()
    }

    /// A node's items begin at a position and index.
    pub(super) fn begin_items(&mut self, node: NodeNumber, first: ItemPosition) {
        self.first_items.insert(node, first);
    }

    /// Forgets a debt, if it is not forgotten. A deleted node whose last it was has nothing more to stay for.
    pub(super) fn forget(&mut self, debt: u64) -> Option<Paid> {
        let node = self.debts.remove(&debt)?;
        if let Some(left) = self.owing.get_mut(&node) {
            *left -= 1;
            if *left == 0 {
                self.owing.remove(&node);
                if self.dead.remove(&node) {
                    self.graves.insert(node);
                }
            }
        }
        let (first, owing) = self.groups.range_mut(..=debt).next_back()?;
        let first = *first;
        owing.debts -= 1;
        owing.paid |= bit(first, debt);
        let Owing { debts, rows, paid } = *owing;
        if debts > 0 {
            return Some(Paid::Some { first, paid });
        }
        self.groups.remove(&first);
        Some(Paid::All { first, rows })
    }

    /// Before this position and index a node has no items.
    pub(super) fn oldest_item(&self, node: NodeNumber) -> ItemPosition {
        self.oldest_items.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn note_oldest_item(&mut self, node: NodeNumber, position: ItemPosition) {
        if self.oldest_items.len() >= MAX_OLDEST_ITEMS {
            self.oldest_items.clear();
        }
        self.oldest_items.insert(node, position);
    }

    /// What has to be removed next: what somebody waits for; items before the node that counts them.
    pub(super) fn next_gc_task(&self) -> Option<GcTask> {
        let subscriptions = self.revoking.first().map(|node| GcTask::Subscriptions(*node));
        let items = self.first_items.first_key_value();
        let items = items.map(|(node, first)| GcTask::Items(*node, *first));
        let node = self.graves.first().map(|node| GcTask::Node(*node));
        subscriptions.or(items).or(node)
    }

    /// Nothing of them is left, or it cannot be removed.
    pub(super) fn finish_gc_task(&mut self, remains: GcTask) {
        match remains {
            GcTask::Subscriptions(node) => drop(self.revoking.remove(&node)),
            GcTask::Items(node, _) => drop(self.first_items.remove(&node)),
            GcTask::Node(node) => drop(self.graves.remove(&node)),
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

    /// Commits that are written together have a list of recipients once.
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
        for _ in 0..MAX_DEBTS {
            ledger.owe(NodeNumber(1), &notification);
        }
        let mut debts = ledger.take_new_debts();
        assert_eq!(take_together(&mut debts, MAX_DEBTS, MAX_DEBTS_BYTES), MAX_DEBTS);
        let bytes: usize = debts.iter().map(|(_, record)| record.len()).sum();
        assert!(bytes < 2 * list.iter().map(|jid| 3 + jid.as_str().len()).sum::<usize>());
    }
}
