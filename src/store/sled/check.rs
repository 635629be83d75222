//! Consistency check of a whole store: every checksum, every index, every count.

use std::collections::BTreeMap;

use crate::store::StoreError;
use gjallar_pubsub::NodeId;

use super::{
    keys::{self, NodeNumber},
    record::{
        self, AffiliationRecord, FormerRecord, ItemIdRecord, ItemRecord, NodeCounters, NodeRecord,
        StoredPayload, damaged,
    },
    recovery,
    revoked_resources::RevokedRecord,
    sled_failed,
    tree_reader::TreeReader,
    write_tx::{self, subscriptions::SubscriptionPointer},
};

/// Maximum number of problems to report, one line each.
const MAX_PROBLEMS: usize = 100;

/// Letters of the tables ([`keys`]) whose number of rows is compared with the number expected for the existing and
/// deleted nodes.
const COUNTED: &[u8] = b"NASlasixcqmMFf";

struct Check<'a> {
    view: &'a TreeReader,
    problems: Vec<String>,
    /// Expected number of rows of each table in [`COUNTED`], by the letter of the table.
    expected: BTreeMap<u8, usize>,
}

pub(super) fn check(view: &TreeReader) -> Result<Vec<String>, StoreError> {
    let mut check = Check { view, problems: Vec::new(), expected: BTreeMap::new() };
    if let Err(error) = recovery::check(&view.tree) {
        check.problems.push(error.to_string());
    }
    for row in view.scan(b"n") {
        let (key, value) = row?;
        let checked = check.node(&key, &value);
        check.note(checked);
    }
    for row in view.scan(b"d") {
        let (key, _) = row?;
        let number = keys::node_at(&key, 1).ok_or_else(|| damaged(&key))?;
        let checked = check.check_node_rows(number);
        check.note(checked);
    }
    for row in view.scan(b"u") {
        check.note(Err(damaged(&row?.0)));
    }
    for row in view.scan(b"R") {
        let (key, value) = row?;
        let number = keys::node_at(&key, 1).ok_or_else(|| damaged(&key))?;
        let checked = record::decode::<RevokedRecord>(&key, &value);
        check.note(checked.and_then(|_| check.pending_entry(&key, number)));
    }
    for row in view.scan(b"p") {
        let (key, _) = row?;
        let number = keys::node_at(&key, 1).ok_or_else(|| damaged(&key))?;
        if view.get::<NodeCounters>(&keys::counters(number))?.is_none() {
            check.note(Err(damaged(&key)));
        }
    }
    let former = view.former_nodes();
    let all = former.as_ref().map_or(&[][..], Vec::as_slice);
    let moved = all.iter().filter(|(_, former)| former.redirect.is_some()).count();
    // Nodes deleted before layout 10 have no row in the table `F`.
    let has_row = |id| matches!(view.get::<FormerRecord>(&keys::former(id)), Ok(Some(_)));
    let owned = all.iter().filter(|(id, _)| has_row(id)).count();
    let expected = [(b'm', moved), (b'M', moved), (b'F', owned), (b'f', all.len() - moved)];
    check.expected.extend(expected);
    check.note(former.map(|_| ()));
    check.note(view.presence_refusals().map(|_| ()));
    // Presence refusals belong to no node, and are in none of the counts.
    for table in COUNTED {
        let (found, expected) = (view.scan(&[*table]).count(), check.expected.get(table).copied());
        if found != expected.unwrap_or_default() {
            let (table, expected) = (char::from(*table), expected.unwrap_or_default());
            check.problems.push(format!("{found} rows in the table {table}, not {expected}"));
        }
    }
    for group in recovery::log_rows(&view.tree) {
        let checked = group.and_then(|group| {
            let mut pending = group.pending.iter();
            pending.try_for_each(|(_, record)| {
                check.pending_entry(&keys::log_row(group.first), record.number())
            })
        });
        check.note(checked);
    }
    check.problems.truncate(MAX_PROBLEMS);
    Ok(check.problems)
}

impl Check<'_> {
    fn note(&mut self, checked: Result<(), StoreError>) {
        self.problems.extend(checked.err().map(|error| error.to_string()));
    }

    fn expect(&mut self, table: u8) {
        *self.expected.entry(table).or_default() += 1;
    }

    fn node(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let number = keys::node_at(key, 1).ok_or_else(|| damaged(key))?;
        let node = record::decode::<NodeRecord>(key, value)?.to_node(key)?;
        let name = keys::name(&node.id);
        self.expect(b'N');
        if self.view.get::<NodeNumber>(&name)? != Some(number) {
            return Err(damaged(&name));
        }
        self.check_node_rows(number)?;
        self.items(number, &node.id)
    }

    /// Checks the rows of an existing or deleted node, except for the content of its items.
    fn check_node_rows(&mut self, number: NodeNumber) -> Result<(), StoreError> {
        for table in keys::TABLES_OF_A_NODE.iter().chain(b"q") {
            let rows = self.view.scan(&keys::of_node(*table, number)).count();
            *self.expected.entry(*table).or_default() += rows;
        }
        self.view.check_node(number)?;
        for row in self.view.scan(&keys::of_node(b'a', number)) {
            let (key, value) = row?;
            let record: AffiliationRecord = record::decode(&key, &value)?;
            let back = keys::affiliation_of(record.entity(&key)?.as_str(), number);
            self.expect(b'A');
            let row = self.raw(&back)?.ok_or_else(|| damaged(&back))?;
            if write_tx::affiliation_in(&back, &row)? != record.affiliation() {
                return Err(damaged(&back));
            }
        }
        for subscription in self.view.subscriptions(number) {
            let (part, jid, record) = subscription?;
            let back = keys::subscription_of(&jid, number);
            self.expect(b'S');
            let place: Option<SubscriptionPointer> = self.view.get(&back)?;
            if place.is_none_or(|place| place.part != part) {
                return Err(damaged(&back));
            }
            if record.is_watched() {
                self.expect(b'l');
            }
        }
        Ok(())
    }

    fn items(&self, number: NodeNumber, node: &NodeId) -> Result<(), StoreError> {
        let epoch = self.view.record(number)?.1.to_node(&[])?.epoch;
        let first = self.view.first_item(number)?;
        let (mut names, mut chunks, mut bytes) = (0, 0, 0);
        for row in self.view.scan(&keys::of_node(b'i', number)) {
            let (key, value) = row?;
            let position = keys::position(&key).ok_or_else(|| damaged(&key))?;
            let record: ItemRecord = record::decode(&key, &value)?;
            if let StoredPayload::Chunks(number) = record.content {
                chunks += usize::from(number);
            }
            let name = keys::item_name(number, record.id());
            let named =
                self.view.get::<ItemIdRecord>(&name)?.filter(|named| named.position() == position);
            let is_named = named.is_some();
            names += usize::from(is_named);
            if position < first {
                continue;
            }
            if !is_named {
                return Err(damaged(&name));
            }
            let item = self.view.item(number, epoch, position)?;
            if item.size() as u64 != record.bytes
                || named.is_none_or(|named| named.created() != item.created)
            {
                return Err(damaged(&key));
            }
            bytes += record.bytes;
        }
        let key = keys::counters(number);
        if self.view.get::<NodeCounters>(&key)?.is_none_or(|counters| counters.bytes != bytes) {
            return Err(damaged(&key));
        }
        for (table, expected) in [(b'x', names), (b'c', chunks)] {
            if self.view.scan(&keys::of_node(table, number)).count() != expected {
                let table = char::from(table);
                return Err(StoreError::Corrupt(format!(
                    "wrong number of rows of {node} in the table {table}"
                )));
            }
        }
        Ok(())
    }

    fn pending_entry(&self, key: &[u8], node: NodeNumber) -> Result<(), StoreError> {
        let (live, dead) = (self.raw(&keys::node(node))?, self.raw(&keys::tombstone(node))?);
        if live.is_some() == dead.is_some() { Err(damaged(key)) } else { Ok(()) }
    }

    fn raw(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.view.tree.get(key).map_err(|error| sled_failed(&error))
    }
}
