//! One commit: changes, and what is told, to rows.

use crate::{
    pubsub::{Affiliation, Change, Changes, Item, NodeId, Notification},
    store::{Committed, Debt, StoreError, Told},
};

use super::{
    debt::{DebtRecord, ToldRecord},
    failed,
    keys::{self, Number, Spot},
    ledger::Ledger,
    record::{
        self, AffiliationName, AffiliationRecord, Content, Counters, ItemRecord, NodeRecord,
        PayloadRecord, SubscriptionRecord, damaged,
    },
    rows::{CHUNK_BYTES, Rows},
};

/// Items that are looked up at once where it is not known how many have to go.
const TRIMMED_AT_ONCE: usize = 64;
/// The longest payload that stands in its item's row.
const MAX_PAYLOAD_HERE: usize = CHUNK_BYTES;

/// One commit, in the rows of its group.
pub(super) struct Turn<'a, 'tree> {
    rows: &'a mut Rows<'tree>,
    ledger: &'a mut Ledger,
}

impl<'a, 'tree> Turn<'a, 'tree> {
    pub(super) fn new(rows: &'a mut Rows<'tree>, ledger: &'a mut Ledger) -> Self {
        Self { rows, ledger }
    }

    /// Carries out the changes of one node, and owes a notification of them.
    pub(super) fn change(
        &mut self,
        id: &NodeId,
        changes: &Changes,
        notification: Option<&Notification>,
    ) -> Result<Committed, StoreError> {
        let mut evicted = 0;
        let mut number = self.rows.get::<Number>(&keys::name(id))?;
        let next = self.ledger.next_node;
        for change in changes.iter() {
            if let Change::Created(node) = change {
                self.rows.put(&keys::name(id), &next)?;
                self.rows.put(&keys::node(next), &NodeRecord::of(node))?;
                number = Some(next);
            }
            let number = number.ok_or_else(|| failed("a change at no node"))?;
            evicted += self.change_one(number, change, changes.seq())?;
        }
        let Some(number) = number else { return Ok(Committed::default()) };
        let debt = notification.map(|notification| self.owe(number, notification)).transpose()?;
        let mut counters = self.counters(number)?;
        counters.seq = changes.seq();
        self.rows.put(&keys::counters(number), &counters)?;
        let is_deleted = changes.iter().any(|change| matches!(change, Change::Deleted));
        let is_owed = debt.is_some() || self.ledger.owes_at(number);
        if is_deleted {
            self.delete(id, number, is_owed)?;
        }

        // Nothing fails from here on.
        if number == next {
            self.ledger.next_node += 1;
        }
        if let Some(debt) = debt {
            self.ledger.owe(debt, number);
        }
        if is_deleted && is_owed {
            self.ledger.bury(number);
        }
        Ok(Committed { debt: debt.map(Debt), evicted })
    }

    fn owe(&mut self, number: Number, notification: &Notification) -> Result<u64, StoreError> {
        let debt = self.ledger.next_debt;
        let record = DebtRecord::of(number, notification);
        self.rows.put_in_chunks(&record, |chunk| keys::debt_chunk(debt, chunk))?;
        Ok(debt)
    }

    /// Forgets what was told.
    pub(super) fn forget(&mut self, told: &Told) -> Result<(), StoreError> {
        for Debt(debt) in &told.debts {
            self.rows.remove_all(&keys::debt(*debt))?;
            if let Some(node) = self.ledger.forget(*debt) {
                self.remove_dead(node)?;
            }
        }
        if let Some((Debt(debt), jid)) = &told.partly {
            self.rows.put(keys::TOLD, &ToldRecord::of(*debt, jid))?;
        }
        Ok(())
    }

    /// Removes what was kept of a deleted node.
    pub(super) fn remove_dead(&mut self, node: Number) -> Result<(), StoreError> {
        self.rows.remove_all(&keys::of_node(b's', node))?;
        self.rows.remove(keys::counters(node));
        self.rows.remove(keys::dead(node));
        Ok(())
    }

    /// Says how many items were evicted.
    fn change_one(&mut self, node: Number, change: &Change, seq: u64) -> Result<u64, StoreError> {
        match change {
            // The one is done before, the other after all others.
            Change::Created(_) | Change::Deleted => {}
            Change::Configured(config) => {
                let key = keys::node(node);
                let mut record = self.rows.get::<NodeRecord>(&key)?.ok_or_else(|| damaged(&key))?;
                record.set_config(config);
                self.rows.put(&key, &record)?;
            }
            Change::Affiliated(entity, affiliation) => {
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
            Change::Subscribed(jid) | Change::Enrolled(jid) => {
                self.rows.put(
                    &keys::subscription(node, jid.as_str()),
                    &SubscriptionRecord::of(jid, seq),
                )?;
                let bare = jid.to_bare();
                let is_own = matches!(change, Change::Subscribed(_));
                self.rows
                    .put(&keys::subscription_of(bare.as_str(), node, jid.as_str()), &is_own)?;
            }
            Change::Unsubscribed(jid) => {
                self.rows.remove(keys::subscription(node, jid.as_str()));
                let bare = jid.to_bare();
                self.rows.remove(keys::subscription_of(bare.as_str(), node, jid.as_str()));
            }
            Change::Published(item) => self.publish(node, item)?,
            Change::Retracted(item) => {
                if let Some(spot) = self.rows.get(&keys::item_name(node, item.as_str()))? {
                    self.remove_item(node, spot)?;
                }
            }
            Change::Trimmed { keep, max_bytes } => {
                return self.trim(node, u64::from(*keep), *max_bytes);
            }
            Change::Purged => {
                for table in keys::ITEM_TABLES {
                    self.rows.remove_all(&keys::of_node(*table, node))?;
                }
                let mut counters = self.counters(node)?;
                (counters.items, counters.bytes) = (0, 0);
                self.rows.put(&keys::counters(node), &counters)?;
            }
        }
        Ok(0)
    }

    fn publish(&mut self, node: Number, item: &Item) -> Result<(), StoreError> {
        let name = keys::item_name(node, item.id.as_str());
        if let Some(spot) = self.rows.get::<Spot>(&name)? {
            self.remove_item(node, spot)?;
        }
        let spot = (item.place.seq, item.index);
        let content = match &item.payload {
            None => Content::None,
            Some(payload)
                if payload.xml().len() + payload.namespace().len() <= MAX_PAYLOAD_HERE =>
            {
                Content::Here(PayloadRecord::of(payload))
            }
            Some(payload) => {
                let key = |chunk| keys::chunk(node, spot, chunk);
                Content::Chunks(self.rows.put_in_chunks(&PayloadRecord::of(payload), key)?)
            }
        };
        let record = ItemRecord::of(item, content);
        self.rows.put(&keys::item(node, spot), &record)?;
        self.rows.put(&name, &spot)?;
        let mut counters = self.counters(node)?;
        counters.items += 1;
        counters.bytes += record.bytes;
        self.rows.put(&keys::counters(node), &counters)
    }

    fn remove_item(&mut self, node: Number, spot: Spot) -> Result<(), StoreError> {
        let key = keys::item(node, spot);
        let record = self.rows.get::<ItemRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        if let Content::Chunks(chunks) = record.content {
            for chunk in 0..chunks {
                self.rows.remove(keys::chunk(node, spot, chunk));
            }
        }
        self.rows.remove(keys::item_name(node, record.id()));
        self.rows.remove(key);
        let mut counters = self.counters(node)?;
        counters.items = counters.items.saturating_sub(1);
        counters.bytes = counters.bytes.saturating_sub(record.bytes);
        self.rows.put(&keys::counters(node), &counters)
    }

    /// Removes the oldest items until the others are few and small enough; says how many went.
    fn trim(&mut self, node: Number, keep: u64, max_bytes: u64) -> Result<u64, StoreError> {
        let mut evicted = 0;
        loop {
            let Counters { items, bytes, .. } = self.counters(node)?;
            let is_over = |items: u64, bytes: u64| items > keep || (bytes > max_bytes && items > 1);
            if !is_over(items, bytes) {
                return Ok(evicted);
            }
            let some = usize::try_from(items.saturating_sub(keep)).unwrap_or(usize::MAX);
            for key in self.rows.first(&keys::of_node(b'i', node), some.max(TRIMMED_AT_ONCE))? {
                let Counters { items, bytes, .. } = self.counters(node)?;
                if !is_over(items, bytes) {
                    break;
                }
                self.remove_item(node, keys::spot(&key).ok_or_else(|| damaged(&key))?)?;
                evicted += 1;
            }
        }
    }

    /// Removes a node; its subscribers stay until they were told what is owed to them.
    fn delete(&mut self, id: &NodeId, node: Number, is_owed: bool) -> Result<(), StoreError> {
        for key in self.rows.first(&keys::of_node(b'a', node), usize::MAX)? {
            let record = self.rows.get::<AffiliationRecord>(&key)?.ok_or_else(|| damaged(&key))?;
            self.rows.remove(keys::affiliation_of(record.entity(&key)?.as_str(), node));
            self.rows.remove(key);
        }
        for key in self.rows.first(&keys::of_node(b's', node), usize::MAX)? {
            let record = self.rows.get::<SubscriptionRecord>(&key)?.ok_or_else(|| damaged(&key))?;
            let jid = record.jid(&key)?;
            self.rows.remove(keys::subscription_of(jid.to_bare().as_str(), node, jid.as_str()));
        }
        for table in keys::ITEM_TABLES {
            self.rows.remove_all(&keys::of_node(*table, node))?;
        }
        self.rows.remove(keys::node(node));
        self.rows.remove(keys::name(id));
        if !is_owed {
            return self.remove_dead(node);
        }
        let counters = Counters { items: 0, bytes: 0, ..self.counters(node)? };
        self.rows.put(&keys::counters(node), &counters)?;
        self.rows.put(&keys::dead(node), &())
    }

    fn counters(&self, node: Number) -> Result<Counters, StoreError> {
        Ok(self.rows.get(&keys::counters(node))?.unwrap_or_default())
    }
}

/// The affiliation in a row of the table `A`.
pub(super) fn affiliation_in(key: &[u8], value: &[u8]) -> Result<Affiliation, StoreError> {
    record::decode::<AffiliationName>(key, value).map(AffiliationName::to_affiliation)
}
