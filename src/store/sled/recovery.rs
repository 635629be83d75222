//! Check of the index when a store is opened. The index consists of the tables whose rows are part of the checksum sum
//! of the store. Items, for example, are part of the checksum sum of their node instead.

use sled::Tree;

use crate::store::StoreError;

use super::{
    keys,
    ledger::{self, Ledger},
    log_entry_record::{self, CursorRecord, LogEntryRecord},
    record::{self, FormerRecord, PositionRecord, StoreHeader, damaged, weight},
    sled_failed,
};

/// Reads the index and compares it with its checksum sum.
pub(super) fn check(tree: &Tree) -> Result<(StoreHeader, Ledger), StoreError> {
    let get = |key: &[u8]| tree.get(key).map_err(|error| sled_failed(&error));
    match get(keys::VERSION)? {
        Some(value) => match record::decode::<u8>(keys::VERSION, &value)? {
            record::OLDEST_VERSION..=record::VERSION => {}
            found => return Err(StoreError::Version { found, expected: record::VERSION }),
        },
        None => {
            return Err(StoreError::Corrupt(
                "not a store of this service: its file `db` has no layout version".into(),
            ));
        }
    }
    let total = get(keys::TOTAL)?.ok_or_else(|| damaged(keys::TOTAL))?;
    let total: StoreHeader = record::decode(keys::TOTAL, &total)?;
    let mut ledger = Ledger::default();
    let (mut sum, mut tombstones) = (0_u64, Vec::new());
    for table in keys::INDEX_TABLES {
        for row in tree.scan_prefix([*table]) {
            let (key, value) = row.map_err(|error| sled_failed(&error))?;
            sum = sum.wrapping_add(weight(&value));
            let number = || keys::node_at(&key, 1).ok_or_else(|| damaged(&key));
            if b"nqdpum".contains(table) {
                ledger.next_node = ledger.next_node.max(number()?.next());
            }
            match table {
                b'n' => {
                    record::decode::<record::NodeRecord>(&key, &value)?;
                }
                b'd' => tombstones.push(number()?),
                b'u' => ledger.schedule_subscription_gc(number()?),
                b'R' => ledger.load_revoked(number()?, record::decode(&key, &value)?),
                b'm' => ledger.redirects += 1,
                b'f' => ledger.former += 1,
                b'F' => {
                    let former: FormerRecord = record::decode(&key, &value)?;
                    let redirect = keys::redirect_of_former(&key);
                    let has_moved = tree.contains_key(redirect).map_err(|e| sled_failed(&e))?;
                    if let Some(owner) = former.share() {
                        ledger.shares().add(owner, (!has_moved).then(|| former.place()));
                    }
                }
                b'p' => {
                    let first: PositionRecord = record::decode(&key, &value)?;
                    ledger.begin_items(number()?, first.into());
                }
                b'w' if *key == *keys::CURSOR => {
                    let cursor: CursorRecord = record::decode(&key, &value)?;
                    ledger.next_position = ledger.next_position.max(cursor.next);
                }
                _ => {}
            }
        }
    }
    if sum != total.sum {
        return Err(StoreError::Corrupt("rows of the index are missing or old".into()));
    }
    for group in log_rows(tree) {
        ledger.load(&group?);
    }
    tombstones.into_iter().for_each(|node| ledger.schedule_node_gc(node));
    Ok((total, ledger))
}

/// Log entries of a group of commits.
pub(super) struct LogRow {
    /// Position of the first log entry.
    pub(super) first: u64,
    /// Number of log entries, including acknowledged ones.
    pub(super) total: u64,
    /// Number of rows that hold the entries.
    pub(super) rows: u16,
    /// Acknowledged entries, one bit each.
    pub(super) acked: u64,
    /// Entries that are not acknowledged.
    pub(super) pending: Vec<(u64, LogEntryRecord)>,
}

/// Reads the log entries of the store, in commit order.
pub(super) fn log_rows(tree: &Tree) -> impl Iterator<Item = Result<LogRow, StoreError>> + use<> {
    let tree = tree.clone();
    let mut rows = tree.scan_prefix(b"o").peekable();
    std::iter::from_fn(move || {
        let (mut bytes, mut number, mut layout) = (Vec::new(), 0, record::VERSION);
        let first: u64 = loop {
            let (key, value) = match rows.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(sled_failed(&error))),
            };
            let Some(first) = keys::number_at(&key, 1) else { return Some(Err(damaged(&key))) };
            let chunk = record::content_of(&key, &value).and_then(|(version, content)| {
                layout = version;
                record::decode_content::<Vec<u8>>(&key, version, content)
            });
            match chunk {
                Ok(chunk) => bytes.extend(chunk),
                Err(error) => return Some(Err(error)),
            }
            number += 1;
            let next = rows.peek().and_then(|row| row.as_ref().ok());
            if next.and_then(|(key, _)| keys::number_at(key, 1)) != Some(first) {
                break first;
            }
        };
        Some(group(&tree, first, number, layout, &bytes))
    })
}

fn group(
    tree: &Tree,
    first: u64,
    rows: u16,
    layout: u8,
    bytes: &[u8],
) -> Result<LogRow, StoreError> {
    let key = keys::acked(first);
    let acked = tree.get(&key).map_err(|error| sled_failed(&error))?;
    let acked: u64 = acked.map_or(Ok(0), |acked| record::decode(&key, &acked))?;
    let mut pending: Vec<(u64, LogEntryRecord)> =
        record::decode_content(&keys::log_row(first), layout, bytes)?;
    log_entry_record::resolve(&keys::log_row(first), &mut pending)?;
    let total = pending.len() as u64;
    pending.retain(|(position, _)| acked & ledger::bit(first, *position) == 0);
    Ok(LogRow { first, total, rows, acked, pending })
}
