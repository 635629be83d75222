//! Translation of the changes and log entries of one commit into rows.

pub(super) mod subscriptions;
use std::{collections::BTreeSet, sync::Arc};

use jid::{BareJid, Jid};

use crate::store::{CommitReceipt, LogPosition, MAX_FORMER_NODES, StoreError, Told};
use gjallar_pubsub::{
    Affiliation, Change, Changes, FormerNode, Item, LogEntry, NodeId, OwnerHash, Sequence,
};

use self::subscriptions::SubscriptionRecord;
use super::{
    failed,
    keys::{self, ItemPosition, NodeNumber},
    ledger::{AckWrite, Ledger, MAX_GROUP_BYTES, MAX_GROUP_ENTRIES},
    log_entry_record::{self, CursorRecord, LOG_CHUNK_BYTES},
    record::{
        self, AffiliationName, AffiliationRecord, FormerRecord, ItemIdRecord, ItemRecord,
        NodeCounters, NodeRecord, PayloadRecord, PositionRecord, RedirectRecord, StoredPayload,
        damaged,
    },
    write_batch::{CHUNK_BYTES, WriteBatch},
};

/// Maximum number of items whose rows are removed within the commit; the rows of more items are left to the garbage
/// collection.
const FEW_ITEMS: usize = 64;
/// Maximum number of ended subscriptions whose rows are removed within the commit. If a commit ends more subscriptions
/// of a node, their rows are removed after the commit is written, but before the store reports its success.
const FEW_SUBSCRIPTIONS: usize = 250;
/// Maximum bytes of the JIDs in one row of the table `u`, which lists ended subscriptions.
const MAX_NOTED_BYTES: usize = 3000;
/// Maximum number of the oldest records of deleted nodes that are evicted when a record is added.
const MAX_FORGOTTEN: usize = 2;
/// Position after all items.
const END: ItemPosition = ItemPosition { sequence: Sequence(u64::MAX), index: 0 };
/// Maximum bytes of a payload that is stored in the row of its item. A longer payload is stored in chunks.
const MAX_PAYLOAD_HERE: usize = CHUNK_BYTES;

/// Write transaction of one commit. The transaction adds its rows to the [`WriteBatch`] of the commit's group.
pub(super) struct WriteTx<'a, 'tree> {
    pub(super) rows: &'a mut WriteBatch<'tree>,
    pub(super) ledger: &'a mut Ledger,
    /// New position of the node's oldest item, if the commit leaves rows of earlier items to the garbage collection.
    first_item: Option<ItemPosition>,
    /// Position before which no item rows are left, if the commit removed the rows of evicted items.
    oldest_item: Option<ItemPosition>,
    /// Change of the number of recorded deleted nodes with a redirect.
    new_redirects: isize,
    /// Change of the number of recorded deleted nodes without a redirect.
    new_former: isize,
    /// Deleted nodes that now count toward the limits of an account: the account, and the key of the reserved name
    /// (`None` for a redirect).
    shared: Vec<(OwnerHash, Option<(u64, NodeNumber)>)>,
    /// Deleted nodes that no longer count toward the limits of an account: the account, and the key of the reserved
    /// name (`None` for a redirect).
    unshared: Vec<(OwnerHash, Option<(u64, NodeNumber)>)>,
}

impl<'a, 'tree> WriteTx<'a, 'tree> {
    pub(super) fn new(rows: &'a mut WriteBatch<'tree>, ledger: &'a mut Ledger) -> Self {
        Self {
            rows,
            ledger,
            first_item: None,
            oldest_item: None,
            new_redirects: 0,
            new_former: 0,
            shared: Vec::new(),
            unshared: Vec::new(),
        }
    }

    /// Applies the changes of one node, and adds its log entries. Also returns the number of the node if rows of its
    /// ended subscriptions must be removed before the store reports success of the commit.
    pub(super) fn apply(
        &mut self,
        id: &NodeId,
        changes: &Changes,
        notifications: &[Arc<LogEntry>],
        revoked: &BTreeSet<Jid>,
    ) -> Result<(CommitReceipt, Option<NodeNumber>), StoreError> {
        let loses_many = changes.unsubscribed().count() > FEW_SUBSCRIPTIONS;
        let mut evicted = 0;
        let mut number = self.rows.get::<NodeNumber>(&keys::name(id))?;
        let next = self.ledger.next_node;
        let mut former = None;
        for change in changes.iter() {
            if let Change::Created(node) = change {
                self.forget_former(id)?;
                self.rows.put(&keys::name(id), &next)?;
                self.rows.put(&keys::node(next), &NodeRecord::of(node))?;
                number = Some(next);
            }
            let number = number.ok_or_else(|| failed("a change without a node"))?;
            if let Change::Deleted(Some(deleted)) = change {
                former = Some(deleted);
            }
            if loses_many && matches!(change, Change::Unsubscribed(_)) {
                continue;
            }
            evicted += self.change_one(number, change, changes)?;
        }
        let Some(number) = number else { return Ok(Default::default()) };
        if loses_many {
            let lost: Vec<_> = changes.unsubscribed().map(Jid::as_str).collect();
            let mut parts = lost.as_slice();
            for part in 0.. {
                if parts.is_empty() {
                    break;
                }
                let mut bytes = 0;
                let fitting = parts.iter().take_while(|jid| {
                    bytes += jid.len();
                    bytes <= MAX_NOTED_BYTES
                });
                let (noted, rest) = parts.split_at(fitting.count().max(1));
                self.rows.put(&keys::revoked(number, part), &noted)?;
                parts = rest;
            }
        }
        let mut counters = self.counters(number)?;
        counters.sequence = changes.sequence().0;
        counters.version = changes.version();
        self.rows.put(&keys::counters(number), &counters)?;
        let is_deleted = changes.iter().any(|change| matches!(change, Change::Deleted { .. }));
        if is_deleted {
            self.delete(id, number)?;
        }
        if let Some(former) = former {
            self.remember(id, number, former)?;
        }
        let revoked = self.revoke_implicit(number, revoked)?;

        // No step below can fail.
        let count = |number: usize, more: isize| number.saturating_add_signed(more);
        self.ledger.redirects = count(self.ledger.redirects, self.new_redirects);
        self.ledger.former = count(self.ledger.former, self.new_former);
        for (owner, place) in self.unshared.drain(..) {
            self.ledger.shares().remove(&owner, place);
        }
        for (owner, place) in self.shared.drain(..) {
            self.ledger.shares().add(owner, place);
        }
        if number == next {
            self.ledger.next_node = next.next();
        }
        if let Some(revoked) = revoked {
            self.ledger.set_revoked(number, revoked);
        }
        let debts = notifications
            .iter()
            .map(|entry| LogPosition(self.ledger.append(number, entry)))
            .collect();
        if let Some(oldest) = self.oldest_item {
            self.ledger.note_oldest_item(number, oldest);
        }
        if loses_many {
            self.ledger.schedule_subscription_gc(number);
        }
        if is_deleted {
            self.ledger.schedule_node_gc(number);
        }
        if let Some(first) = self.first_item {
            self.ledger.begin_items(number, first);
        }
        Ok((CommitReceipt { debts, evicted, sync: None }, loses_many.then_some(number)))
    }

    /// Writes the log entries of the commits of the group.
    pub(super) fn append_log_row(&mut self) -> Result<(), StoreError> {
        let mut entries = self.ledger.take_new_entries();
        let mut rest = entries.as_mut_slice();
        while let Some((first, _)) = rest.first() {
            let first = *first;
            let together =
                log_entry_record::take_together(rest, MAX_GROUP_ENTRIES, MAX_GROUP_BYTES);
            let (entries, others) = rest.split_at_mut(together);
            rest = others;
            let entries = &*entries;
            let key = |chunk| keys::log_chunk(first, chunk);
            let rows = self.rows.put_in_chunks(&entries, LOG_CHUNK_BYTES, key)?;
            self.ledger.record_written(first, entries.len(), rows);
        }
        Ok(())
    }

    /// Acknowledges log entries.
    pub(super) fn acknowledge(&mut self, acks: &Told) -> Result<(), StoreError> {
        for LogPosition(position) in &acks.debts {
            let node = self.ledger.node_of(*position);
            match self.ledger.acknowledge(*position) {
                Some(AckWrite::Group { first, rows }) => {
                    (0..rows).for_each(|chunk| self.rows.remove(keys::log_chunk(first, chunk)));
                    self.rows.remove(keys::acked(first));
                }
                Some(AckWrite::Bits { first, acked }) => {
                    self.rows.put(&keys::acked(first), &acked)?
                }
                None => {}
            }
            if let Some(node) = node {
                self.forget_revoked(node);
            }
        }
        let earlier = self.rows.get::<CursorRecord>(keys::CURSOR)?.unwrap_or_default();
        let is_pending = |position| self.ledger.node_of(position).is_some();
        let record = earlier.followed_by(self.ledger.next_position, &acks.partly, is_pending);
        self.rows.put(keys::CURSOR, &record)
    }

    /// Adds entities to the presence refusals, or removes entities.
    pub(super) fn set_presence_refusals(
        &mut self,
        changes: &[(BareJid, bool)],
    ) -> Result<(), StoreError> {
        for (entity, refuses) in changes {
            let key = keys::presence_refusal(entity.as_str());
            match refuses {
                true => self.rows.put(&key, &entity.as_str())?,
                false => self.rows.remove(key),
            }
        }
        Ok(())
    }

    /// Applies one change; returns the number of evicted items.
    fn change_one(
        &mut self,
        node: NodeNumber,
        change: &Change,
        changes: &Changes,
    ) -> Result<u64, StoreError> {
        let version = changes.version();
        match change {
            // Created is handled before, Deleted after all other changes.
            Change::Created(_) | Change::Deleted(_) => {}
            Change::Configured(config) => {
                self.change_node(node, |record| record.set_config(config))?;
            }
            Change::Revised(revision) => {
                self.change_node(node, |record| record.set_revision(revision))?;
            }
            Change::AffiliationSet(entity, affiliation) => {
                let (row, back) = (
                    keys::affiliation(node, entity.as_str()),
                    keys::affiliation_of(entity.as_str(), node),
                );
                match AffiliationName::of(*affiliation) {
                    Some(name) => {
                        self.rows.put(&row, &AffiliationRecord::of(entity, name))?;
                        self.rows.put(&back, &name)?;
                    }
                    None => {
                        self.rows.remove(row);
                        self.rows.remove(back);
                    }
                }
            }
            Change::SubscriptionRequested(jid) => {
                self.subscribe(
                    node,
                    SubscriptionRecord::requested(jid, version),
                    jid,
                    true,
                    changes.sequence(),
                )?;
            }
            Change::Subscribed(jid) => {
                self.subscribe(
                    node,
                    SubscriptionRecord::of(jid, version),
                    jid,
                    true,
                    changes.sequence(),
                )?;
            }
            Change::SubscribedByOwner(jid) => {
                self.subscribe(
                    node,
                    SubscriptionRecord::of(jid, version),
                    jid,
                    false,
                    changes.sequence(),
                )?;
            }
            Change::SubscriptionOptionsSet(jid, details) => {
                self.agree(node, jid, details, version)?
            }
            Change::Unsubscribed(jid) => self.unsubscribe(node, jid)?,
            Change::Published(item) => self.publish(node, item)?,
            Change::Retracted(item) => {
                self.remove_item_of_name(node, item.as_str())?;
            }
            Change::ItemsEvicted { keep, max_bytes } => {
                return self.evict(node, u64::from(*keep), *max_bytes);
            }
            // All items are from earlier events.
            Change::Purged => self.begin_items(node, changes.sequence().into(), 0, 0)?,
        }
        Ok(0)
    }

    fn change_node(
        &mut self,
        node: NodeNumber,
        change: impl FnOnce(&mut NodeRecord),
    ) -> Result<(), StoreError> {
        let key = keys::node(node);
        let mut record = self.rows.get::<NodeRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        change(&mut record);
        self.rows.put(&key, &record)
    }

    fn publish(&mut self, node: NodeNumber, item: &Item) -> Result<(), StoreError> {
        let before = self.remove_item_of_name(node, item.id.as_str())?;
        let (position, created) = (item.position(), before.unwrap_or(item.created));
        let content = match &item.payload {
            None => StoredPayload::None,
            Some(payload)
                if payload.xml().len() + payload.namespace().len() <= MAX_PAYLOAD_HERE =>
            {
                StoredPayload::Here(PayloadRecord::of(payload))
            }
            Some(payload) => {
                let key = |chunk| keys::chunk(node, position, chunk);
                let record = PayloadRecord::of(payload);
                StoredPayload::Chunks(self.rows.put_in_chunks(&record, CHUNK_BYTES, key)?)
            }
        };
        let record = ItemRecord::of(item, created, content);
        self.rows.put(&keys::item(node, position), &record)?;
        self.rows
            .put(&keys::item_name(node, item.id.as_str()), &ItemIdRecord::of(position, created))?;
        let mut counters = self.counters(node)?;
        counters.items += 1;
        counters.bytes += record.bytes;
        self.rows.put(&keys::counters(node), &counters)
    }

    /// Removes the item with this id. Returns the position at which the id was first published; `None` if the item did
    /// not exist.
    fn remove_item_of_name(
        &mut self,
        node: NodeNumber,
        item: &str,
    ) -> Result<Option<ItemPosition>, StoreError> {
        match self.rows.get::<ItemIdRecord>(&keys::item_name(node, item))? {
            Some(found) if found.position() >= self.first_item(node)? => {
                self.remove_item(node, found.position())?;
                Ok(Some(found.created()))
            }
            _ => Ok(None),
        }
    }

    fn remove_item(&mut self, node: NodeNumber, position: ItemPosition) -> Result<(), StoreError> {
        let (record, _) = self.remove_item_rows(node, position)?;
        let mut counters = self.counters(node)?;
        counters.items = counters.items.saturating_sub(1);
        counters.bytes = counters.bytes.saturating_sub(record.bytes);
        self.rows.put(&keys::counters(node), &counters)
    }

    /// Evicts the oldest items until the rest is within the limits; returns the number of evicted items. If more than
    /// [`FEW_ITEMS`] items are evicted, their rows are left to the garbage collection.
    fn evict(&mut self, node: NodeNumber, keep: u64, max_bytes: u64) -> Result<u64, StoreError> {
        let NodeCounters { mut items, mut bytes, .. } = self.counters(node)?;
        let mut first = self.first_item(node)?.max(self.ledger.oldest_item(node));
        let mut going = Vec::new();
        while items > keep || (bytes > max_bytes && items > 1) {
            let some = usize::try_from(items.saturating_sub(keep)).unwrap_or(usize::MAX);
            let some = some.clamp(1, FEW_ITEMS);
            let from = keys::item(node, first);
            let keys = self.rows.first_from(&from, &keys::of_node(b'i', node), some)?;
            if keys.is_empty() {
                return Err(damaged(&keys::counters(node)));
            }
            for key in keys {
                let position = keys::position(&key).ok_or_else(|| damaged(&key))?;
                let record = self.rows.get::<ItemRecord>(&key)?.ok_or_else(|| damaged(&key))?;
                items = items.saturating_sub(1);
                bytes = bytes.saturating_sub(record.bytes);
                first = keys::after(position);
                going.push(position);
            }
        }
        if going.len() > FEW_ITEMS {
            self.begin_items(node, first, items, bytes)?;
        } else if !going.is_empty() {
            for position in &going {
                self.remove_item_rows(node, *position)?;
            }
            let counters = NodeCounters { items, bytes, ..self.counters(node)? };
            self.rows.put(&keys::counters(node), &counters)?;
            self.oldest_item = Some(first);
        }
        Ok(going.len() as u64)
    }

    /// Removes all items before a position; `items` and `bytes` are the number and the bytes of the remaining items.
    fn begin_items(
        &mut self,
        node: NodeNumber,
        first: ItemPosition,
        items: u64,
        bytes: u64,
    ) -> Result<(), StoreError> {
        self.first_item = Some(first);
        self.rows.put(&keys::first_item(node), &PositionRecord::from(first))?;
        let counters = NodeCounters { items, bytes, ..self.counters(node)? };
        self.rows.put(&keys::counters(node), &counters)
    }

    fn first_item(&self, node: NodeNumber) -> Result<ItemPosition, StoreError> {
        let first: Option<PositionRecord> = self.rows.get(&keys::first_item(node))?;
        Ok(first.map_or_else(ItemPosition::default, Into::into))
    }

    /// Removes a node, so that it is no longer found. The subscribers stay until the pending log entries are delivered,
    /// and other rows are left to the garbage collection because they may be many.
    fn delete(&mut self, id: &NodeId, node: NodeNumber) -> Result<(), StoreError> {
        self.rows.remove(keys::node(node));
        self.rows.remove(keys::name(id));
        self.rows.put(&keys::tombstone(node), &())?;
        self.begin_items(node, END, 0, 0)
    }

    /// Records a deleted node. The record of a node without a redirect evicts older records without a redirect. These
    /// are the oldest record of the same account if the account has reached its limit, and up to [`MAX_FORGOTTEN`] of
    /// the oldest records that exceed the total limit or whose names are no longer reserved.
    fn remember(
        &mut self,
        id: &NodeId,
        number: NodeNumber,
        former: &FormerNode,
    ) -> Result<(), StoreError> {
        self.rows.put(&keys::former(id), &FormerRecord::of(number, former))?;
        let place = former.redirect.is_none().then_some((former.deleted.0, number));
        self.shared.extend(former.share().map(|owner| (owner, place)));
        if let Some(uri) = &former.redirect {
            let record = RedirectRecord { number, uri: uri.clone() };
            self.rows.put(&keys::redirect(id), &record)?;
            self.rows.put(&keys::moved(number), &id.as_str())?;
            self.new_redirects += 1;
            return Ok(());
        }
        let own_oldest = former.share().and_then(|own| self.ledger.shares().oldest_of_full(&own));
        if let Some((deleted, number)) = own_oldest {
            let key = keys::deleted(deleted, number);
            let (oldest, record) = self.reserved(&key)?;
            self.release(key, oldest, &record);
        }
        self.rows.put(&keys::deleted(former.deleted.0, number), &id.as_str())?;
        self.new_former += 1;
        for key in self.rows.first(b"f", MAX_FORGOTTEN)? {
            let (oldest, record) = self.reserved(&key)?;
            let known = self.ledger.former.saturating_add_signed(self.new_former);
            if known <= MAX_FORMER_NODES && !record.to_former(None).is_over(former.deleted) {
                break;
            }
            self.release(key, oldest, &record);
        }
        Ok(())
    }

    /// Returns the record of a deleted node, and the key of the record. `key` is the key of the row in the table `f`
    /// that reserves the name of the node.
    fn reserved(&self, key: &[u8]) -> Result<(Vec<u8>, FormerRecord), StoreError> {
        let name = self.rows.get::<String>(key)?.ok_or_else(|| damaged(key))?;
        let former = keys::former(&NodeId::parse(&name).map_err(|_| damaged(key))?);
        let record = self.rows.get::<FormerRecord>(&former)?.ok_or_else(|| damaged(key))?;
        Ok((former, record))
    }

    /// Removes the record of a deleted node without a redirect.
    fn release(&mut self, reserved: Vec<u8>, former: Vec<u8>, record: &FormerRecord) {
        self.rows.remove(former);
        self.rows.remove(reserved);
        self.new_former -= 1;
        self.unshared.extend(record.share().map(|owner| (owner, Some(record.place()))));
    }

    /// Removes the record of a deleted node when a new node of the same name is created.
    fn forget_former(&mut self, id: &NodeId) -> Result<(), StoreError> {
        let (redirect, former) = (keys::redirect(id), keys::former(id));
        let moved = self.rows.get::<RedirectRecord>(&redirect)?;
        if let Some(record) = &moved {
            self.rows.remove(redirect);
            self.rows.remove(keys::moved(record.number));
            self.new_redirects -= 1;
        }
        if let Some(record) = self.rows.get::<FormerRecord>(&former)? {
            self.rows.remove(former);
            let place = moved.is_none().then(|| record.place());
            self.unshared.extend(record.share().map(|owner| (owner, place)));
            if moved.is_none() {
                self.rows.remove(keys::deleted(record.deleted, record.number));
                self.new_former -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn counters(&self, node: NodeNumber) -> Result<NodeCounters, StoreError> {
        Ok(self.rows.get(&keys::counters(node))?.unwrap_or_default())
    }
}

/// Decodes the affiliation in a row of the table `A`.
pub(super) fn affiliation_in(key: &[u8], value: &[u8]) -> Result<Affiliation, StoreError> {
    record::decode::<AffiliationName>(key, value).map(AffiliationName::to_affiliation)
}
