//! Resources that lost an implicit subscription (`+notify`, §12.2) while log entries of the node were pending. The
//! resources do not receive these entries, before or after a restart, even if they have regained access.

use std::collections::{BTreeMap, BTreeSet};

use jid::Jid;

use crate::store::StoreError;
use gjallar_pubsub::NodeId;

use super::{
    keys::{self, NodeNumber},
    record::StoredRecord,
    write_tx::WriteTx,
};

/// Maximum bytes of the resources in one row of the table.
const MAX_RESOURCES_BYTES: usize = 3500;
/// Bytes that a resource takes up in a row in addition to its JID.
const RESOURCE_BYTES: usize = 12;

/// Resources of a node, each with the first log position at which it may receive entries again.
pub(super) type RevokedRecord = Vec<(String, u64)>;

impl StoredRecord for RevokedRecord {}

/// Resources of a node, and the number of rows that hold them.
#[derive(Clone, Debug, Default)]
pub(super) struct Revoked {
    resources: BTreeMap<String, u64>,
    rows: u32,
}

impl Revoked {
    /// Adds a row read from the store.
    pub(super) fn load(&mut self, record: RevokedRecord) {
        self.resources.extend(record);
        self.rows += 1;
    }

    /// Splits the resources into rows.
    fn records(&self) -> Vec<RevokedRecord> {
        let (mut records, mut bytes) = (Vec::<RevokedRecord>::new(), usize::MAX);
        for (jid, until) in &self.resources {
            let own = jid.len() + RESOURCE_BYTES;
            bytes = bytes.saturating_add(own);
            if bytes > MAX_RESOURCES_BYTES {
                records.push(Vec::new());
                bytes = own;
            }
            if let Some(record) = records.last_mut() {
                record.push((jid.clone(), *until));
            }
        }
        records
    }
}

impl WriteTx<'_, '_> {
    /// Records that resources lost their implicit subscription to a node, if log entries of the node are pending.
    /// Returns all recorded resources of the node; `None` if this call recorded nothing.
    pub(super) fn revoke_implicit(
        &mut self,
        node: NodeNumber,
        resources: &BTreeSet<Jid>,
    ) -> Result<Option<Revoked>, StoreError> {
        if resources.is_empty() || !self.ledger.has_pending(node) {
            return Ok(None);
        }
        let (oldest, next) = (self.ledger.oldest_pending(), self.ledger.next_position);
        let mut revoked = self.ledger.revoked(node).cloned().unwrap_or_default();
        revoked.resources.retain(|_, until| *until > oldest);
        revoked.resources.extend(resources.iter().map(|jid| (jid.to_string(), next)));
        let mut rows = 0;
        for record in revoked.records() {
            self.rows.put(&keys::revoked_implicit(node, rows), &record)?;
            rows += 1;
        }
        self.remove_revoked(node, rows..revoked.rows);
        Ok(Some(Revoked { rows, ..revoked }))
    }

    /// Records that resources lost their implicit subscription to a node, outside a commit of the node. Records nothing
    /// if the node does not exist.
    pub(super) fn revoke_implicit_at(
        &mut self,
        id: &NodeId,
        resources: &BTreeSet<Jid>,
    ) -> Result<(), StoreError> {
        let Some(node) = self.rows.get::<NodeNumber>(&keys::name(id))? else { return Ok(()) };
        if let Some(revoked) = self.revoke_implicit(node, resources)? {
            self.ledger.set_revoked(node, revoked);
        }
        Ok(())
    }

    /// Removes the recorded resources of a node, if no log entries of the node are pending.
    pub(super) fn forget_revoked(&mut self, node: NodeNumber) {
        if !self.ledger.has_pending(node)
            && let Some(revoked) = self.ledger.take_revoked(node)
        {
            self.remove_revoked(node, 0..revoked.rows);
        }
    }

    fn remove_revoked(&mut self, node: NodeNumber, rows: std::ops::Range<u32>) {
        rows.for_each(|row| self.rows.remove(keys::revoked_implicit(node, row)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sled::write_batch::MAX_ROW_BYTES;

    #[test]
    fn rows_stay_within_their_size_for_all_lengths_of_jids() {
        for len in [3, 8, 20, 200, 3071] {
            let number = if len > 200 { 3 } else { 400 };
            let jid = |index: usize| format!("{index:0len$}");
            let resources: BTreeMap<_, _> =
                (0..number).map(|index| (jid(index), u64::MAX)).collect();
            let records = Revoked { resources, rows: 0 }.records();
            assert_eq!(records.iter().map(Vec::len).sum::<usize>(), number);
            for record in records {
                let bytes = postcard::to_stdvec(&record).unwrap().len();
                assert!(bytes <= MAX_ROW_BYTES - 500, "{len}: {bytes}");
            }
        }
    }
}
