//! Gives the fuzz targets access to the stored records, which are otherwise private.

use jid::{BareJid, Jid};

use crate::store::StoreError;

use super::{
    log_entry_record::{self, AudienceRecords, CursorRecord, LogEntryRecord, ReadAudiences},
    record::{
        AffiliationName, AffiliationRecord, ItemRecord, NodeCounters, NodeRecord, StoreHeader,
        StoredPayload, decode, encode, encode_content,
    },
    write_tx::subscriptions::{SubscriptionRecord, read_part, write_part},
};

/// Adds the layout version and a valid checksum to `content`, and decodes the result as the kind of record that `table`
/// selects. Most kinds are then encoded and decoded again, and the two decoded records are compared.
pub fn record(table: u8, content: &[u8]) {
    let key = [table];
    let bytes = encode_content(&key, content);
    let _ = match table % 8 {
        0 => node(&key, &bytes),
        1 => item(&key, &bytes),
        2 => log_row(&key, &bytes),
        3 => decode::<AffiliationRecord>(&key, &bytes).and_then(|record| {
            let entity: BareJid = record.entity(&key)?;
            let name = AffiliationName::of(record.affiliation()).ok_or(closed())?;
            let again = encode(&key, &AffiliationRecord::of(&entity, name))?;
            let again: AffiliationRecord = decode(&key, &again)?;
            assert_eq!(again.entity(&key).ok(), Some(entity));
            Ok(())
        }),
        4 => part(&key, &bytes),
        5 => decode::<NodeCounters>(&key, &bytes).map(|_| ()),
        6 => decode::<StoreHeader>(&key, &bytes).map(|_| ()),
        _ => {
            decode::<CursorRecord>(&key, &bytes).and_then(|cursor| cursor.partly(&key)).map(|_| ())
        }
    };
    // The input is also decoded as a complete row, without an added version and checksum.
    let _ = decode::<NodeRecord>(&key, content);
}

fn node(key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
    let node = decode::<NodeRecord>(key, bytes)?.to_node(key)?;
    let again = encode(key, &NodeRecord::of(&node))?;
    assert_eq!(decode::<NodeRecord>(key, &again)?.to_node(key).ok(), Some(node));
    Ok(())
}

fn item(key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
    let mut record = decode::<ItemRecord>(key, bytes)?;
    let payload = match std::mem::replace(&mut record.content, StoredPayload::None) {
        StoredPayload::Here(payload) => Some(payload),
        StoredPayload::None | StoredPayload::Chunks(_) => None,
    };
    let item = record.to_item(
        key,
        gjallar_pubsub::Epoch(1),
        gjallar_pubsub::ItemPosition { sequence: gjallar_pubsub::Sequence(2), index: 3 },
        payload,
    )?;
    let again = encode(key, &ItemRecord::of(&item, item.created, StoredPayload::None))?;
    let again = decode::<ItemRecord>(key, &again)?;
    assert_eq!(again.bytes, item.size() as u64);
    assert_eq!(again.id(), item.id.as_str());
    Ok(())
}

fn part(key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
    for record in read_part(key, &decode::<Vec<u8>>(key, bytes)?)? {
        let jid: Jid = record.jid(key)?;
        let _ = (record.configured(), record.subscriptions(key)?);
        let again = write_part(&[SubscriptionRecord::of(&jid, record.since)])?;
        let again = read_part(key, &again)?;
        assert!(again.iter().all(|record| record.is_of(&jid)) && again.len() == 1);
    }
    Ok(())
}

/// Decodes the log entries of a group of commits. Then encodes and decodes each entry again, and compares the results.
fn log_row(key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
    let mut entries = decode::<Vec<(u64, LogEntryRecord)>>(key, bytes)?;
    log_entry_record::resolve(key, &mut entries)?;
    entries.into_iter().try_for_each(|(_, record)| log_entry(key, record))
}

fn log_entry(key: &[u8], record: LogEntryRecord) -> Result<(), StoreError> {
    let number = record.number();
    let mut read = ReadAudiences::default();
    let notification = record.into_notification(key, &mut read)?;
    let again = LogEntryRecord::of(number, &notification, &mut AudienceRecords::default());
    let again = decode::<Vec<(u64, LogEntryRecord)>>(key, &encode(key, &vec![(0, again)])?)?;
    for (_, again) in again {
        assert_eq!(again.into_notification(key, &mut read)?, notification);
    }
    Ok(())
}

fn closed() -> StoreError {
    StoreError::Failed("a record must not have this affiliation".into())
}
