//! New epochs for all nodes of a store, after its folder was restored from an older copy.

use std::collections::HashMap;

use crate::store::StoreError;
use gjallar_pubsub::IdGenerator;

use super::{
    keys::{self, NodeNumber},
    log_entry_record::{self, LOG_CHUNK_BYTES},
    open::OpenStore,
    record::{NodeRecord, damaged},
    recovery::{self, LogRow},
    sled_failed,
};

/// Number of nodes rewritten with one sync.
const BATCH: usize = 200;

/// Assigns a new epoch to every node and its pending entries; returns the number of nodes. If the rebase is
/// interrupted, it has to be run again before the store can be opened. The caller must reopen the store afterwards.
pub(super) fn rebase(opened: &mut OpenStore, fresh: &dyn IdGenerator) -> Result<u64, StoreError> {
    opened.write(|rows, _| {
        rows.put(keys::REBASE, &true)?;
        rows.end_commit(true);
        Ok(())
    })?;
    let mut epochs = HashMap::<NodeNumber, u64>::new();
    let keys: Result<Vec<_>, _> = opened.tree.scan_prefix(b"n").keys().collect();
    let keys = keys.map_err(|error| sled_failed(&error))?;
    for batch in keys.chunks(BATCH) {
        opened.write(|rows, _| {
            for key in batch {
                let mut record = rows.get::<NodeRecord>(key)?.ok_or_else(|| damaged(key))?;
                let number = keys::node_at(key, 1).ok_or_else(|| damaged(key))?;
                record.set_epoch(*epochs.entry(number).or_insert_with(|| fresh.next_u64()));
                rows.put(key, &record)?;
            }
            rows.end_commit(true);
            Ok(())
        })?;
    }
    let nodes = epochs.len() as u64;
    for group in recovery::log_rows(&opened.tree) {
        let LogRow { first, rows: chunks, mut pending, .. } = group?;
        for (_, record) in &mut pending {
            record.set_epoch(*epochs.entry(record.number()).or_insert_with(|| fresh.next_u64()));
        }
        log_entry_record::take_together(&mut pending, usize::MAX, usize::MAX);
        opened.write(|rows, _| {
            (0..chunks).for_each(|chunk| rows.remove(keys::log_chunk(first, chunk)));
            let key = |chunk| keys::log_chunk(first, chunk);
            rows.put_in_chunks(&pending, LOG_CHUNK_BYTES, key)?;
            rows.end_commit(true);
            Ok(())
        })?;
    }
    opened.write(|rows, _| {
        rows.remove(keys::REBASE.to_vec());
        rows.end_commit(true);
        Ok(())
    })?;
    Ok(nodes)
}
