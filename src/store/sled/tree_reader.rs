//! Reads of nodes and items from the rows. Reads do not wait for writes.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use jid::{BareJid, Jid};
use sled::Tree;

use crate::store::{StoreError, deleted_nodes::FormerShares};
use gjallar_pubsub::{
    Affiliation, Epoch, Item, ItemBudget, ItemId, Node, NodeId, OwnerHash, ResultPage, Sequence,
    SubscriptionState,
};

use super::{
    failed,
    keys::{self, ItemPosition, NodeNumber},
    ledger::Ledger,
    record::{
        self, AffiliationRecord, ItemIdRecord, ItemRecord, NodeCounters, NodeRecord,
        PositionRecord, StoreHeader, StoredPayload, StoredRecord, damaged, weight,
    },
    sled_failed,
    write_tx::subscriptions::{SubscriptionPointer, SubscriptionRecord, read_part},
};

/// Maximum number of items of a node that is verified on the current thread. The first read of a node verifies its
/// checksum sum, and therefore reads all items. Later reads of the node have no such limit.
const FEW_ITEMS: u64 = 100;
/// Maximum [`NodeCounters::part`] (number of the newest part of the subscriptions) of a node that is read on the
/// current thread.
const FEW_PARTS: u32 = 2;
/// Number of times that a referenced row is read before it is reported as missing.
pub(super) const READ_ATTEMPTS: usize = 3;

/// Handle for reads. It stays valid when the store is reopened.
#[derive(Clone, Debug)]
pub(super) struct ReadHandle {
    state: Arc<Mutex<OpenTree>>,
    /// Lock that is held shared by reads and commits, and exclusively while the files of the store are copied. Reads
    /// hold the lock because sled may write files during a read.
    files: Arc<RwLock<()>>,
    /// Number of deleted nodes with a redirect.
    redirects: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct OpenTree {
    /// The tree, or the reason why the store is closed.
    tree: Result<Tree, String>,
    /// Nodes whose checksum sum was verified since the store was opened.
    checked: HashSet<NodeNumber>,
    /// Records of deleted nodes by account.
    shares: Arc<Mutex<FormerShares>>,
}

impl OpenTree {
    fn new(tree: &Tree, ledger: &Ledger) -> Self {
        Self { tree: Ok(tree.clone()), checked: HashSet::new(), shares: ledger.shared_shares() }
    }
}

impl ReadHandle {
    pub(super) fn new(tree: &Tree, ledger: &Ledger) -> Self {
        let state = OpenTree::new(tree, ledger);
        let redirects = Arc::new(AtomicUsize::new(ledger.redirects));
        Self { state: Arc::new(Mutex::new(state)), files: Arc::default(), redirects }
    }

    /// Locks the files shared: other reads and one commit may run meanwhile.
    pub(super) fn lock_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the files shared. Returns `None` if another thread holds the exclusive lock or waits for it.
    pub(super) fn try_reading(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.files.try_read().ok()
    }

    /// Locks the files exclusively: no other read or commit runs meanwhile.
    pub(super) fn lock_exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_redirects(&self, redirects: usize) {
        self.redirects.store(redirects, Ordering::Relaxed);
    }

    pub(super) fn redirects_len(&self) -> usize {
        self.redirects.load(Ordering::Relaxed)
    }

    pub(super) fn redirects_of(&self, account: &OwnerHash) -> usize {
        let shares = Arc::clone(&self.state().shares);
        let shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.redirects_of(account)
    }

    /// Closes the store for reads.
    pub(super) fn close(&self, reason: &str) {
        self.state().tree = Err(reason.to_owned());
    }

    /// Switches to the tree of the reopened store.
    pub(super) fn replace(&self, tree: &Tree, ledger: &Ledger) {
        *self.state() = OpenTree::new(tree, ledger);
    }

    /// Returns a reader of the current tree.
    pub(super) fn tree_reader(&self) -> Result<TreeReader, StoreError> {
        let tree = self.state().tree.clone().map_err(|reason| failed(&reason))?;
        Ok(TreeReader { tree, reader: self.clone() })
    }

    /// Returns `true` if the checksum sum of a node was verified.
    fn has_checked(&self, number: NodeNumber) -> bool {
        self.state().checked.contains(&number)
    }

    fn state(&self) -> MutexGuard<'_, OpenTree> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reader of the rows of an open store.
pub(super) struct TreeReader {
    pub(super) tree: Tree,
    reader: ReadHandle,
}

impl TreeReader {
    /// Reads rows that refer to each other. A concurrent commit may remove some of these rows, so damage is reported
    /// only if no commit was applied during the read. Returns `None` if all [`READ_ATTEMPTS`] attempts found damage,
    /// and commits were applied meanwhile.
    pub(super) fn read_between_commits<T>(
        &self,
        read: impl Fn(&Self) -> Result<T, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        let commit =
            || self.get::<StoreHeader>(keys::TOTAL).ok().flatten().map(|total| total.commit);
        let mut before = None;
        for _ in 0..READ_ATTEMPTS {
            let found = read(self);
            if !matches!(found, Err(StoreError::Corrupt(_))) {
                return Some(found);
            }
            let after = commit();
            if before == Some(after) {
                return Some(found);
            }
            before = Some(after);
        }
        None
    }

    pub(super) fn get<T: StoredRecord>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.tree.get(key).map_err(|error| sled_failed(&error))? {
            Some(value) => record::decode(key, &value).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> + use<> {
        self.tree.scan_prefix(prefix).map(|row| row.map_err(|error| sled_failed(&error)))
    }

    pub(super) fn number(&self, id: &NodeId) -> Result<Option<NodeNumber>, StoreError> {
        self.get(&keys::name(id))
    }

    pub(super) fn record(&self, number: NodeNumber) -> Result<(Vec<u8>, NodeRecord), StoreError> {
        let key = keys::node(number);
        let record = self.get::<NodeRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        Ok((key, record))
    }

    pub(super) fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(None) };
        let (key, record) = self.record(number)?;
        if record.name() != id.as_str() {
            return Err(damaged(&key));
        }
        self.check_node(number)?;
        self.check_revoked(number)?;
        let mut node = record.to_node(&key)?;
        let counters = self.get::<NodeCounters>(&keys::counters(number))?.unwrap_or_default();
        (node.sequence, node.version) = (Sequence(counters.sequence), counters.version);
        for affiliation in self.affiliations(number) {
            let (entity, affiliation) = affiliation?;
            node.load_affiliation(entity, affiliation);
        }
        for subscription in self.subscriptions(number) {
            let (_, jid, record) = subscription?;
            match (record.configured(), record.state()) {
                (Some(configured), _) => node.load_configured(jid, configured),
                (None, SubscriptionState::Pending) => node.load_pending(jid),
                (None, _) => node.load_subscription(jid, record.since),
            }
        }
        Ok(Some(node))
    }

    pub(super) fn affiliations(
        &self,
        number: NodeNumber,
    ) -> impl Iterator<Item = Result<(BareJid, Affiliation), StoreError>> + use<> {
        affiliations(&self.tree, number)
    }

    /// Reads a node if that needs only a few rows. The outer `None` means that it needs too many rows, the inner `None`
    /// that the node is absent.
    pub(super) fn small_node(&self, id: &NodeId) -> Result<Option<Option<Node>>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(Some(None)) };
        let counters = self.get::<NodeCounters>(&keys::counters(number))?.unwrap_or_default();
        let has_few_items = counters.items <= FEW_ITEMS || self.reader.has_checked(number);
        let is_little = has_few_items && counters.part <= FEW_PARTS;
        Ok(if is_little { Some(self.node(id)?) } else { None })
    }

    pub(super) fn enrolled(&self, id: &NodeId) -> Result<HashSet<Jid>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(HashSet::new()) };
        let jids = self.subscriptions(number).map(|found| found.map(|(_, jid, _)| jid));
        self.enrolled_of(number, jids)
    }

    pub(super) fn enrolled_among(
        &self,
        id: &NodeId,
        subscribers: &[Jid],
    ) -> Result<HashSet<Jid>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(HashSet::new()) };
        self.enrolled_of(number, subscribers.iter().cloned().map(Ok))
    }

    fn enrolled_of(
        &self,
        number: NodeNumber,
        subscribers: impl Iterator<Item = Result<Jid, StoreError>>,
    ) -> Result<HashSet<Jid>, StoreError> {
        let mut enrolled = HashSet::new();
        for jid in subscribers {
            let jid = jid?;
            let back = keys::subscription_of(&jid, number);
            if !self.get::<SubscriptionPointer>(&back)?.ok_or_else(|| damaged(&back))?.is_own {
                enrolled.insert(jid);
            }
        }
        Ok(enrolled)
    }

    /// Iterates over a node's subscriptions: part number, JID and record.
    pub(super) fn subscriptions(
        &self,
        number: NodeNumber,
    ) -> impl Iterator<Item = Result<(u32, Jid, SubscriptionRecord), StoreError>> + use<> {
        self.scan(&keys::of_node(b's', number)).flat_map(|row| {
            let part = row.and_then(|(key, value)| {
                let part = keys::part(&key).ok_or_else(|| damaged(&key))?;
                let records = read_part(&key, &record::decode::<Vec<u8>>(&key, &value)?)?;
                let subscription =
                    |record: SubscriptionRecord| record.jid(&key).map(|jid| (part, jid, record));
                Ok(records.into_iter().map(subscription).collect())
            });
            part.unwrap_or_else(|error| vec![Err(error)])
        })
    }

    /// Compares a node's rows with its checksum sum, once while the store is open.
    pub(super) fn check_node(&self, number: NodeNumber) -> Result<(), StoreError> {
        if self.reader.has_checked(number) {
            return Ok(());
        }
        let key = keys::counters(number);
        let counters = || self.get::<NodeCounters>(&key)?.ok_or_else(|| damaged(&key));
        let mut expected = counters()?;
        loop {
            let found = self.count(number)?;
            let now = counters()?;
            if found == (now.sum, now.items) {
                break;
            }
            // The sum differs if garbage rows were removed during the count.
            if now.sum == expected.sum {
                let what = format!("rows of node {} are missing or old", number.0);
                return Err(StoreError::Corrupt(what));
            }
            expected = now;
        }
        self.reader.state().checked.insert(number);
        Ok(())
    }

    /// Fails if the table `u` has a row for the node. Such a row lists ended subscriptions, and is deleted before the
    /// store reports success of the commit that ended them. A row that is left shows that the store is damaged.
    pub(super) fn check_revoked(&self, number: NodeNumber) -> Result<(), StoreError> {
        match self.scan(&keys::of_node(b'u', number)).next().transpose()? {
            Some((key, _)) => Err(damaged(&key)),
            None => Ok(()),
        }
    }

    /// Computes the checksum sum of a node's rows, and the number of its items.
    fn count(&self, number: NodeNumber) -> Result<(u64, u64), StoreError> {
        let first = self.first_item(number)?;
        let (mut sum, mut items) = (0_u64, 0);
        for table in keys::TABLES_OF_A_NODE {
            for row in self.scan(&keys::of_node(*table, number)) {
                let (key, value) = row?;
                sum = sum.wrapping_add(weight(&value));
                let is_item = *table == b'i'
                    && keys::position(&key).is_some_and(|position| position >= first);
                items += u64::from(is_item);
            }
        }
        Ok((sum, items))
    }

    /// Returns the position of a node's oldest item; rows before it are garbage.
    pub(super) fn first_item(&self, node: NodeNumber) -> Result<ItemPosition, StoreError> {
        let first: Option<PositionRecord> = self.get(&keys::first_item(node))?;
        Ok(first.map_or_else(ItemPosition::default, Into::into))
    }

    pub(super) fn items(
        &self,
        id: &NodeId,
        ids: &[ItemId],
        budget: &ItemBudget,
    ) -> Result<ResultPage<Item>, StoreError> {
        let Some(number) = self.number(id)? else {
            return Ok(ResultPage { index: None, ..ResultPage::empty() });
        };
        let epoch = self.record(number)?.1.to_node(&[])?.epoch;
        let mut positions = self.positions_of(number, ids)?;
        positions.sort_unstable();
        positions.dedup();
        let total = positions.len();
        let newest_first =
            positions.into_iter().rev().map(|position| self.item(number, epoch, position));
        let mut items = take_while_fits(newest_first, budget.fits())?;
        items.reverse();
        Ok(ResultPage { entries: items, index: None, total: Some(total) })
    }

    pub(super) fn publishers(
        &self,
        id: &NodeId,
        ids: &[ItemId],
    ) -> Result<BTreeMap<ItemId, BareJid>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(BTreeMap::new()) };
        let epoch = self.record(number)?.1.to_node(&[])?.epoch;
        let items = self.positions_of(number, ids)?.into_iter();
        let items = items.map(|position| self.item_without_payload(number, epoch, position));
        items.map(|item| item.map(|item| (item.id, item.publisher))).collect()
    }

    /// Returns the positions of the named items that exist.
    fn positions_of(
        &self,
        node: NodeNumber,
        ids: &[ItemId],
    ) -> Result<Vec<ItemPosition>, StoreError> {
        // Read before the names, because the row is removed with the last garbage row of an item.
        let first = self.first_item(node)?;
        let mut positions = Vec::new();
        for id in ids {
            let found = self.get::<ItemIdRecord>(&keys::item_name(node, id.as_str()))?;
            positions.extend(found.map(ItemIdRecord::position).filter(|at| *at >= first));
        }
        Ok(positions)
    }

    pub(super) fn item_without_payload(
        &self,
        node: NodeNumber,
        epoch: Epoch,
        position: ItemPosition,
    ) -> Result<Item, StoreError> {
        let key = keys::item(node, position);
        let record = self.get::<ItemRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        record.to_item(&key, epoch, position, None)
    }

    pub(super) fn item(
        &self,
        node: NodeNumber,
        epoch: Epoch,
        position: ItemPosition,
    ) -> Result<Item, StoreError> {
        let key = keys::item(node, position);
        let mut record = self.get::<ItemRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        let payload = match std::mem::replace(&mut record.content, StoredPayload::None) {
            StoredPayload::None => None,
            StoredPayload::Here(payload) => Some(payload),
            StoredPayload::Chunks(chunks) => {
                let mut bytes = Vec::new();
                for chunk in 0..chunks {
                    let key = keys::chunk(node, position, chunk);
                    bytes.extend(self.get::<Vec<u8>>(&key)?.ok_or_else(|| damaged(&key))?);
                }
                Some(postcard::from_bytes(&bytes).map_err(|_| damaged(&key))?)
            }
        };
        record.to_item(&key, epoch, position, payload)
    }
}

/// Iterates over a node's affiliations.
pub(super) fn affiliations(
    tree: &Tree,
    number: NodeNumber,
) -> impl Iterator<Item = Result<(BareJid, Affiliation), StoreError>> + use<> {
    tree.scan_prefix(keys::of_node(b'a', number)).map(|row| {
        let (key, value) = row.map_err(|error| sled_failed(&error))?;
        let record: AffiliationRecord = record::decode(&key, &value)?;
        Ok((record.entity(&key)?, record.affiliation()))
    })
}

pub(super) fn name(key: &[u8], record: &NodeRecord) -> Result<NodeId, StoreError> {
    NodeId::parse(record.name()).map_err(|_| damaged(key))
}

/// Returns the values before the first value for which `fits` returns `false`, or the first error.
fn take_while_fits<T>(
    found: impl Iterator<Item = Result<T, StoreError>>,
    mut fits: impl FnMut(&T) -> bool,
) -> Result<Vec<T>, StoreError> {
    found.take_while(|entry| entry.as_ref().map_or(true, &mut fits)).collect()
}
