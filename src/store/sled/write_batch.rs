//! Rows written by a group of commits, as an overlay over the rows of the tree. The batch also updates the sums of row
//! checksums that include these rows.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use serde::Serialize;
use sled::{Batch, Tree};

use crate::store::StoreError;

use super::{
    failed,
    keys::{self, ChecksumScope, NodeNumber},
    record::{self, NodeCounters, StoreHeader, StoredRecord, weight},
    sled_failed,
};

/// Maximum bytes of a row, key and value together. Larger rows would make sled write blob files.
pub(super) const MAX_ROW_BYTES: usize = 4096;
/// Bytes of a chunk of a long payload.
pub(super) const CHUNK_BYTES: usize = 900;

type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows to write for a group of commits. A row with the value `None` is removed from the tree.
pub(super) struct WriteBatch<'a> {
    tree: &'a Tree,
    kept: Overlay,
    /// Rows of the current commit.
    new: Overlay,
    /// Cache of the checksums of rows in the tree.
    weights: RefCell<HashMap<Vec<u8>, u64>>,
}

impl<'a> WriteBatch<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self { tree, kept: Overlay::new(), new: Overlay::new(), weights: RefCell::default() }
    }

    /// Ends a commit: keeps or discards its rows.
    pub(super) fn end_commit(&mut self, keep: bool) {
        let new = std::mem::take(&mut self.new);
        if keep {
            self.kept.extend(new);
        }
    }

    /// Returns the number of rows written by the commits so far.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn get<T: StoredRecord>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.new.get(key).or_else(|| self.kept.get(key)) {
            Some(Some(value)) => record::decode(key, value).map(Some),
            Some(None) => Ok(None),
            None => {
                let value = self.tree.get(key).map_err(|error| sled_failed(&error))?;
                let found = value.as_ref().map_or(0, |value| weight(value));
                self.weights.borrow_mut().insert(key.to_vec(), found);
                value.map(|value| record::decode(key, &value)).transpose()
            }
        }
    }

    pub(super) fn put<T: Serialize>(&mut self, key: &[u8], record: &T) -> Result<(), StoreError> {
        let value = record::encode(key, record)?;
        if key.len() + value.len() > MAX_ROW_BYTES {
            return Err(failed(&format!("a row of {} bytes", key.len() + value.len())));
        }
        self.new.insert(key.to_vec(), Some(value));
        Ok(())
    }

    /// Writes a record of any length in chunks; returns their number.
    pub(super) fn put_in_chunks<T: Serialize>(
        &mut self,
        record: &T,
        chunk_bytes: usize,
        key: impl Fn(u16) -> Vec<u8>,
    ) -> Result<u16, StoreError> {
        let bytes = postcard::to_stdvec(record).map_err(|error| failed(&error))?;
        let mut number = 0;
        for chunk in bytes.chunks(chunk_bytes) {
            self.put(&key(number), &chunk)?;
            number =
                number.checked_add(1).ok_or_else(|| failed(&"a record with too many parts"))?;
        }
        Ok(number)
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.new.insert(key, None);
    }

    /// Returns the first keys with a prefix, at most `limit`. Keys of the tree come before keys of this batch. The
    /// result is therefore sorted only if the new keys are the highest, as the keys of new items are.
    pub(super) fn first(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.first_from(prefix, prefix, limit)
    }

    /// Returns the first keys with a prefix as [`first`](Self::first), beginning at the key `from`.
    pub(super) fn first_from(
        &self,
        from: &[u8],
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        for row in self.tree.range(from..).keys() {
            let key = row.map_err(|error| sled_failed(&error))?;
            if keys.len() == limit || !key.starts_with(prefix) {
                break;
            }
            if !self.new.contains_key(key.as_ref()) && !self.kept.contains_key(key.as_ref()) {
                keys.push(key.to_vec());
            }
        }
        for (key, value) in in_overlay(&self.kept, from, prefix) {
            if value.is_some() && !self.new.contains_key(key) {
                keys.push(key.clone());
            }
        }
        keys.extend(
            in_overlay(&self.new, from, prefix)
                .filter(|(_, v)| v.is_some())
                .map(|(k, _)| k.clone()),
        );
        keys.truncate(limit);
        Ok(keys)
    }

    /// Returns all rows as one batch, with the new sums of row checksums.
    pub(super) fn finish(
        mut self,
        total: &StoreHeader,
    ) -> Result<(Batch, StoreHeader), StoreError> {
        let mut of_nodes = BTreeMap::<NodeNumber, u64>::new();
        for (key, value) in &self.kept {
            if let ChecksumScope::Node(node) = keys::group(key) {
                let sum = of_nodes.entry(node).or_default();
                *sum = sum.wrapping_add(self.difference(key, value.as_deref())?);
            }
        }
        for (node, difference) in of_nodes {
            let key = keys::counters(node);
            if let Some(mut counters) = self.get::<NodeCounters>(&key)? {
                counters.sum = counters.sum.wrapping_add(difference);
                self.put(&key, &counters)?;
            }
        }
        self.end_commit(true);

        let mut total = StoreHeader { commit: total.commit + 1, ..*total };
        for (key, value) in &self.kept {
            if let ChecksumScope::Store = keys::group(key) {
                let difference = self.difference(key, value.as_deref())?;
                total.sum = total.sum.wrapping_add(difference);
            }
        }
        self.put(keys::TOTAL, &total)?;
        self.end_commit(true);

        let mut batch = Batch::default();
        for (key, value) in self.kept {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok((batch, total))
    }

    /// Returns the number to add to the checksum sum when the row at `key` changes to `value`.
    fn difference(&self, key: &[u8], value: Option<&[u8]>) -> Result<u64, StoreError> {
        let seen = self.weights.borrow().get(key).copied();
        let old = match seen {
            Some(old) => old,
            None => {
                let old = self.tree.get(key).map_err(|error| sled_failed(&error))?;
                old.map_or(0, |old| weight(&old))
            }
        };
        Ok(value.map_or(0, weight).wrapping_sub(old))
    }
}

fn in_overlay<'a>(
    rows: &'a Overlay,
    from: &[u8],
    prefix: &'a [u8],
) -> impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)> {
    rows.range(from.to_vec()..).take_while(move |(key, _)| key.starts_with(prefix))
}
