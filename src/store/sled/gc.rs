//! Garbage collection: each group of commits also removes a limited number of garbage rows (a slice), so that no write
//! is large. Garbage consists of the rows of deleted nodes, and of the rows of items and subscriptions that one commit
//! removed in large numbers.

use jid::Jid;
use tracing::error;

use crate::store::StoreError;

use super::{
    keys::{self, ItemPosition, NodeNumber},
    ledger::{GcTask, Ledger},
    record::{AffiliationRecord, ItemIdRecord, ItemRecord, StoredPayload, damaged},
    write_batch::WriteBatch,
    write_tx::WriteTx,
};

/// Approximate number of rows removed with each group of commits. If a group writes more rows than this, about as many
/// rows are removed as written, so garbage never accumulates.
const MAX_ROWS: usize = 500;

/// Progress that one slice made in a garbage collection task.
struct GcProgress {
    /// Approximate number of removed rows.
    rows: usize,
    /// `true` if the task is complete.
    is_all: bool,
}

/// Removes a slice of the garbage. A task that meets a damaged record is postponed until the store is reopened. If the
/// postponed task removes a node's ended subscriptions, returns the node and the error, because the commit that ended
/// the subscriptions waits for their removal.
pub(super) fn collect_garbage(
    rows: &mut WriteBatch<'_>,
    ledger: &mut Ledger,
) -> Result<Option<(NodeNumber, StoreError)>, StoreError> {
    let mut left = MAX_ROWS.max(rows.len());
    while left > 0
        && let Some(remains) = ledger.next_gc_task()
    {
        let swept = WriteTx::new(rows, ledger).collect(remains, left);
        rows.end_commit(swept.is_ok());
        match swept {
            Ok(GcProgress { rows, is_all }) => {
                left = left.saturating_sub(rows);
                if is_all {
                    ledger.finish_gc_task(remains);
                }
            }
            Err(error @ StoreError::Corrupt(_)) => {
                error!(
                    event = "gc_failed",
                    %error,
                    "failed to remove old records of a node; will retry at the next start"
                );
                ledger.finish_gc_task(remains);
                if let GcTask::Subscriptions(node) = remains {
                    return Ok(Some((node, error)));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

impl WriteTx<'_, '_> {
    /// Removes about `rows` rows of a task.
    fn collect(&mut self, remains: GcTask, rows: usize) -> Result<GcProgress, StoreError> {
        let (GcTask::Subscriptions(node) | GcTask::Items(node, _) | GcTask::Node(node)) = remains;
        // Without readable counters nothing is removed, because they could not be updated.
        self.counters(node)?;
        match remains {
            GcTask::Subscriptions(node) => self.sweep_subscriptions(node, rows),
            GcTask::Items(node, first) => self.sweep_items(node, first, rows),
            GcTask::Node(node) => self.sweep_node(node, rows),
        }
    }

    fn sweep_subscriptions(
        &mut self,
        node: NodeNumber,
        max_rows: usize,
    ) -> Result<GcProgress, StoreError> {
        let mut rows = 0;
        for key in self.rows.first(&keys::of_node(b'u', node), max_rows)? {
            if rows >= max_rows {
                return Ok(GcProgress { rows, is_all: false });
            }
            let lost: Vec<String> = self.rows.get(&key)?.ok_or_else(|| damaged(&key))?;
            for jid in &lost {
                self.unsubscribe(node, &Jid::new(jid).map_err(|_| damaged(&key))?)?;
            }
            self.rows.remove(key);
            rows += 2 * lost.len() + 1;
        }
        Ok(GcProgress { rows, is_all: rows < max_rows })
    }

    fn sweep_items(
        &mut self,
        node: NodeNumber,
        first: ItemPosition,
        max_rows: usize,
    ) -> Result<GcProgress, StoreError> {
        let mut rows = 0;
        for key in self.rows.first(&keys::of_node(b'i', node), max_rows)? {
            let position = keys::position(&key).ok_or_else(|| damaged(&key))?;
            if position >= first {
                break;
            }
            if rows >= max_rows {
                return Ok(GcProgress { rows, is_all: false });
            }
            rows += self.remove_item_rows(node, position)?.1;
        }
        let is_all = rows < max_rows;
        if is_all {
            self.rows.remove(keys::first_item(node));
        }
        Ok(GcProgress { rows: rows + 1, is_all })
    }

    /// Removes the rows of an item; returns the item and the number of removed rows. The row that maps the item's name
    /// to a position stays if it points to a newer item of the same name.
    pub(super) fn remove_item_rows(
        &mut self,
        node: NodeNumber,
        position: ItemPosition,
    ) -> Result<(ItemRecord, usize), StoreError> {
        let key = keys::item(node, position);
        let record = self.rows.get::<ItemRecord>(&key)?.ok_or_else(|| damaged(&key))?;
        let chunks = match record.content {
            StoredPayload::Chunks(chunks) => chunks,
            StoredPayload::None | StoredPayload::Here(_) => 0,
        };
        for chunk in 0..chunks {
            self.rows.remove(keys::chunk(node, position, chunk));
        }
        let name = keys::item_name(node, record.id());
        if self.rows.get::<ItemIdRecord>(&name)?.is_some_and(|named| named.position() == position) {
            self.rows.remove(name);
        }
        self.rows.remove(key);
        Ok((record, 2 + usize::from(chunks)))
    }

    /// Removes the affiliations and subscriptions of a deleted node with their index rows. Once none is left, removes
    /// the node's `q` and `d` rows.
    fn sweep_node(&mut self, node: NodeNumber, max_rows: usize) -> Result<GcProgress, StoreError> {
        // Rows that could not be removed still need the node number.
        for table in b"ui" {
            if let Some(key) = self.rows.first(&keys::of_node(*table, node), 1)?.first() {
                return Err(damaged(key));
            }
        }
        let mut rows = 0;
        for key in self.rows.first(&keys::of_node(b'a', node), max_rows / 2)? {
            let record = self.rows.get::<AffiliationRecord>(&key)?.ok_or_else(|| damaged(&key))?;
            self.rows.remove(keys::affiliation_of(record.entity(&key)?.as_str(), node));
            self.rows.remove(key);
            rows += 2;
        }
        for key in self.rows.first(&keys::of_node(b's', node), max_rows)? {
            if rows >= max_rows {
                break;
            }
            for record in self.part(&key)? {
                let jid = record.jid(&key)?;
                if record.is_watched() {
                    self.rows.remove(keys::watched(node, &jid));
                }
                self.rows.remove(keys::subscription_of(&jid, node));
                rows += 1;
            }
            self.rows.remove(key);
            rows += 1;
        }
        let is_all = rows + 1 < max_rows;
        if is_all {
            self.rows.remove(keys::counters(node));
            self.rows.remove(keys::tombstone(node));
        }
        Ok(GcProgress { rows: rows + 2, is_all })
    }
}
