//! The index: everything but what belongs to one node. It is read and checked when the store is opened.

use sled::Tree;

use crate::store::StoreError;

use super::{
    debt::{DebtRecord, ToldRecord},
    keys::{self, Number},
    ledger::Ledger,
    record::{self, Total, damaged, weight},
    sled_failed,
};

/// Reads the index and compares it with its sum.
pub(super) fn check(tree: &Tree) -> Result<(Total, Ledger), StoreError> {
    let get = |key: &[u8]| tree.get(key).map_err(|error| sled_failed(&error));
    match get(keys::VERSION)? {
        Some(value) => match record::decode::<u8>(keys::VERSION, &value)? {
            record::VERSION => {}
            found => return Err(StoreError::Version { found, expected: record::VERSION }),
        },
        None => return Err(StoreError::Damaged("not a store of this service".into())),
    }
    let total = get(keys::TOTAL)?.ok_or_else(|| damaged(keys::TOTAL))?;
    let total: Total = record::decode(keys::TOTAL, &total)?;
    let mut ledger = Ledger::default();
    let (mut sum, mut dead, mut told) = (0_u64, Vec::new(), 0);
    for table in keys::INDEX_TABLES {
        for row in tree.scan_prefix([*table]) {
            let (key, value) = row.map_err(|error| sled_failed(&error))?;
            sum = sum.wrapping_add(weight(&value));
            let number = || keys::number_at(&key, 1).ok_or_else(|| damaged(&key));
            if b"nqdpu".contains(table) {
                ledger.next_node = ledger.next_node.max(number()? + 1);
            }
            match table {
                b'n' => {
                    record::decode::<record::NodeRecord>(&key, &value)?;
                }
                b'd' => dead.push(number()?),
                b'u' => ledger.revoke(number()?),
                b'p' => ledger.begin_items(number()?, record::decode(&key, &value)?),
                b'w' => told = record::decode::<ToldRecord>(&key, &value)?.debt,
                _ => {}
            }
        }
    }
    if sum != total.sum {
        return Err(StoreError::Damaged("rows of the index are missing or old".into()));
    }
    ledger.next_debt = ledger.next_debt.max(told);
    for group in debts(tree) {
        let (debts, rows) = group?;
        ledger.load(debts.iter().map(|(debt, record)| (*debt, record.number)), rows, told);
    }
    dead.into_iter().for_each(|node| ledger.bury(node));
    Ok((total, ledger))
}

/// What is owed and what was owed with it, in the order of the commits: the debts of each group, and how many rows
/// these are.
pub(super) fn debts(
    tree: &Tree,
) -> impl Iterator<Item = Result<(Vec<(u64, DebtRecord)>, u16), StoreError>> + use<> {
    let mut rows = tree.scan_prefix(b"o").peekable();
    std::iter::from_fn(move || {
        let (mut bytes, mut number) = (Vec::new(), 0);
        let first: Number = loop {
            let (key, value) = match rows.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(sled_failed(&error))),
            };
            let Some(first) = keys::number_at(&key, 1) else { return Some(Err(damaged(&key))) };
            match record::decode::<Vec<u8>>(&key, &value) {
                Ok(chunk) => bytes.extend(chunk),
                Err(error) => return Some(Err(error)),
            }
            number += 1;
            let next = rows.peek().and_then(|row| row.as_ref().ok());
            if next.and_then(|(key, _)| keys::number_at(key, 1)) != Some(first) {
                break first;
            }
        };
        let debts: Result<Vec<(u64, DebtRecord)>, _> = postcard::from_bytes(&bytes);
        Some(debts.map(|debts| (debts, number)).map_err(|_| damaged(&keys::debt(first))))
    })
}
