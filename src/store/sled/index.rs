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
    let (mut sum, mut dead) = (0_u64, Vec::new());
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
                    record::decode::<record::NodeRecord>(&key, &value)?.to_node(&key)?;
                }
                b'd' => dead.push(number()?),
                b'u' => ledger.revoke(number()?),
                b'p' => ledger.begin_items(number()?, record::decode(&key, &value)?),
                b'w' => {
                    let told: ToldRecord = record::decode(&key, &value)?;
                    ledger.next_debt = ledger.next_debt.max(told.debt + 1);
                }
                _ => {}
            }
        }
    }
    if sum != total.sum {
        return Err(StoreError::Damaged("rows of the index are missing or old".into()));
    }
    for debt in debts(tree) {
        let (debt, node) = debt.map(|(debt, record)| (debt, record.number))?;
        ledger.owe(debt, node);
    }
    dead.into_iter().for_each(|node| ledger.bury(node));
    Ok((total, ledger))
}

/// What is owed, in the order of the commits.
pub(super) fn debts(
    tree: &Tree,
) -> impl Iterator<Item = Result<(u64, DebtRecord), StoreError>> + use<> {
    let mut rows = tree.scan_prefix(b"o").peekable();
    std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        let debt: Number = loop {
            let (key, value) = match rows.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(sled_failed(&error))),
            };
            let Some(debt) = keys::number_at(&key, 1) else { return Some(Err(damaged(&key))) };
            match record::decode::<Vec<u8>>(&key, &value) {
                Ok(chunk) => bytes.extend(chunk),
                Err(error) => return Some(Err(error)),
            }
            let next = rows.peek().and_then(|row| row.as_ref().ok());
            if next.and_then(|(key, _)| keys::number_at(key, 1)) != Some(debt) {
                break debt;
            }
        };
        let record = postcard::from_bytes(&bytes).map_err(|_| damaged(&keys::debt(debt)));
        Some(record.map(|record| (debt, record)))
    })
}
