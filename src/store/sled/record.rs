//! Stored records, each with a version byte and a checksum over its key and content. The types are separate from the
//! types of `gjallar_pubsub`, so that these may change without a new layout.

use jid::BareJid;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::store::{NodeNumber, StoreError};
use gjallar_pubsub::{
    Affiliation, ConfigRevision, Epoch, EventId, FormerNode, Item, ItemId, Node, NodeConfig,
    NodeId, OwnerHash, Payload, Sequence, Timestamp,
};

use super::{config_record::ConfigRecord, keys::ItemPosition};

/// Layout version that is written.
pub(super) const VERSION: u8 = 10;
/// Oldest layout version that is read. Node records of an older layout are rewritten when the store is opened, other
/// records when they change.
pub(super) const OLDEST_VERSION: u8 = 9;

/// Positions of the item with an id: the position of its newest publication, and the position of the publication that
/// created the item. An item that is published again after its removal is created anew.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct ItemIdRecord {
    position: PositionRecord,
    created: PositionRecord,
}

impl ItemIdRecord {
    pub(super) fn of(position: ItemPosition, created: ItemPosition) -> Self {
        Self { position: position.into(), created: created.into() }
    }

    pub(super) fn position(self) -> ItemPosition {
        self.position.into()
    }

    pub(super) fn created(self) -> ItemPosition {
        self.created.into()
    }
}

/// Record that is readable in each layout from [`OLDEST_VERSION`] to [`VERSION`].
pub(super) trait StoredRecord: DeserializeOwned {
    /// Decodes a record of layout 9. Most records are the same in both layouts.
    fn from_layout_9(bytes: &[u8]) -> postcard::Result<Self> {
        postcard::from_bytes(bytes)
    }
}

impl StoredRecord for () {}
impl StoredRecord for u8 {}
impl StoredRecord for u64 {}
impl StoredRecord for NodeNumber {}
impl StoredRecord for String {}
impl StoredRecord for Vec<u8> {}
impl StoredRecord for Vec<String> {}
impl StoredRecord for PositionRecord {}
impl StoredRecord for ItemIdRecord {}

/// Item position: sequence and index.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct PositionRecord(u64, u16);

impl From<ItemPosition> for PositionRecord {
    fn from(at: ItemPosition) -> Self {
        Self(at.sequence.0, at.index)
    }
}

impl From<PositionRecord> for ItemPosition {
    fn from(PositionRecord(sequence, index): PositionRecord) -> Self {
        Self { sequence: Sequence(sequence), index }
    }
}

/// Encodes a record for its key: version, content, checksum.
pub(super) fn encode<T: Serialize>(key: &[u8], record: &T) -> Result<Vec<u8>, StoreError> {
    let bytes = postcard::to_stdvec(record)
        .map_err(|error| StoreError::Failed(format!("cannot write a record: {error}")))?;
    Ok(encode_content(key, &bytes))
}

/// Adds version and checksum to the content of a record.
pub(super) fn encode_content(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 5);
    bytes.push(VERSION);
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&checksum(key, &bytes).to_le_bytes());
    bytes
}

/// Decodes the record of a key.
pub(super) fn decode<T: StoredRecord>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    let (version, content) = content_of(key, bytes)?;
    decode_content(key, version, content)
}

/// Decodes the content of a record of a layout version.
pub(super) fn decode_content<T: StoredRecord>(
    key: &[u8],
    version: u8,
    content: &[u8],
) -> Result<T, StoreError> {
    let record =
        if version == VERSION { postcard::from_bytes(content) } else { T::from_layout_9(content) };
    record.map_err(|_| damaged(key))
}

/// Returns the layout version and the content of the record of a key, after verifying the checksum.
pub(super) fn content_of<'a>(key: &[u8], bytes: &'a [u8]) -> Result<(u8, &'a [u8]), StoreError> {
    let (content, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged(key))?;
    if checksum(key, content).to_le_bytes() != *sum {
        return Err(damaged(key));
    }
    match content.split_first() {
        Some((version @ OLDEST_VERSION..=VERSION, content)) => Ok((*version, content)),
        Some((&found, _)) => Err(StoreError::Version { found, expected: VERSION }),
        None => Err(damaged(key)),
    }
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

/// Returns the checksum at the end of a row, as the number that the row adds to the checksum sum of its node or of the
/// store.
pub(super) fn weight(value: &[u8]) -> u64 {
    value.last_chunk::<4>().map_or(0, |sum| u64::from(u32::from_le_bytes(*sum)))
}

/// Error that names a damaged record by table and key.
pub(super) fn damaged(key: &[u8]) -> StoreError {
    let table = key.first().map_or('?', |byte| char::from(*byte));
    let rest: String = key.iter().skip(1).map(|byte| format!("{byte:02x}")).collect();
    StoreError::Corrupt(format!("damaged record: {table} {rest}"))
}

#[derive(Serialize, Deserialize)]
pub(super) struct NodeRecord {
    name: String,
    epoch: u64,
    creator: String,
    created: u64,
    config: ConfigRecord,
    revision: RevisionRecord,
}

/// Revision of a node's configuration.
#[derive(Default, Serialize, Deserialize)]
struct RevisionRecord {
    number: u64,
    /// The entity that last changed the configuration; `None` stands for the creator.
    changed_by: Option<String>,
    base: u64,
    /// The owner whose roster grants access. `None` stands for the creator, and an empty text for no owner.
    #[serde(deserialize_with = "trailing")]
    roster_owner: Option<String>,
    /// The owner who last changed the configuration; `None` stands for the entity in `changed_by`.
    #[serde(deserialize_with = "trailing")]
    last_owner: Option<String>,
}

/// Decodes a trailing field, which older records lack.
fn trailing<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(from).unwrap_or_default())
}

/// [`NodeRecord`] in layout 9, which stored no revisions. The upgrade adds the revision that
/// [`Node::inherited_revision`] returns.
#[derive(Deserialize)]
struct NodeRecord9 {
    name: String,
    epoch: u64,
    creator: String,
    created: u64,
    config: ConfigRecord,
}

impl StoredRecord for NodeRecord {
    fn from_layout_9(bytes: &[u8]) -> postcard::Result<Self> {
        let NodeRecord9 { name, epoch, creator, created, config } = postcard::from_bytes(bytes)?;
        Ok(Self { name, epoch, creator, created, config, revision: RevisionRecord::default() })
    }
}

/// Redirect of a deleted node.
#[derive(Serialize, Deserialize)]
pub(super) struct RedirectRecord {
    /// Number of the deleted node.
    pub(super) number: NodeNumber,
    pub(super) uri: String,
}

impl StoredRecord for RedirectRecord {}

/// Record of a deleted node.
#[derive(Serialize, Deserialize)]
pub(super) struct FormerRecord {
    /// Number of the deleted node.
    pub(super) number: NodeNumber,
    pub(super) deleted: u64,
    pub(super) owners: Vec<[u8; 20]>,
    /// Hash of the account toward whose limits the record counts. `None` stands for the first owner.
    #[serde(deserialize_with = "trailing")]
    account: Option<[u8; 20]>,
}

impl StoredRecord for FormerRecord {}

impl FormerRecord {
    pub(super) fn of(number: NodeNumber, former: &FormerNode) -> Self {
        let owners = former.owners.iter().map(|owner| owner.0).collect();
        let account = former.account.map(|account| account.0);
        Self { number, deleted: former.deleted.0, owners, account }
    }

    /// Returns the account toward whose limits on redirects and reserved names the record counts.
    pub(super) fn share(&self) -> Option<OwnerHash> {
        self.account.or_else(|| self.owners.first().copied()).map(OwnerHash)
    }

    /// Returns the key that identifies the node's reserved name: time of deletion and node number.
    pub(super) fn place(&self) -> (u64, NodeNumber) {
        (self.deleted, self.number)
    }

    pub(super) fn to_former(&self, redirect: Option<String>) -> FormerNode {
        let owners = self.owners.iter().copied().map(OwnerHash).collect();
        let account = self.account.map(OwnerHash);
        FormerNode { redirect, deleted: Timestamp(self.deleted), owners, account }
    }
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct NodeCounters {
    /// Sequence of the node's newest event.
    pub(super) sequence: u64,
    /// Number of items.
    pub(super) items: u64,
    /// Total bytes of the items.
    pub(super) bytes: u64,
    /// Checksum sum over the rows of the node.
    pub(super) sum: u64,
    /// Number of the newest part of the node's subscriptions. A part is a row with several subscriptions, and new
    /// subscriptions go into the newest part.
    pub(super) part: u32,
    /// Number of the node's last commit. For a node of layout 9, the sequence of the node's newest event.
    pub(super) version: u64,
}

/// [`NodeCounters`] in layout 9.
#[derive(Deserialize)]
struct Counters9 {
    sequence: u64,
    items: u64,
    bytes: u64,
    sum: u64,
    part: u32,
}

impl StoredRecord for NodeCounters {
    fn from_layout_9(bytes: &[u8]) -> postcard::Result<Self> {
        let Counters9 { sequence, items, bytes, sum, part } = postcard::from_bytes(bytes)?;
        Ok(Self { sequence, items, bytes, sum, part, version: sequence })
    }
}

/// Header of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreHeader {
    /// Id of the store, which no other store has.
    pub(super) store: u64,
    /// Counter that every written group of commits increases by 1.
    pub(super) commit: u64,
    /// Checksum sum over the index.
    pub(super) sum: u64,
}

impl StoredRecord for StoreHeader {}

#[derive(Serialize, Deserialize)]
pub(super) struct AffiliationRecord {
    entity: String,
    affiliation: AffiliationName,
}

impl StoredRecord for AffiliationRecord {}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum AffiliationName {
    Owner,
    Publisher,
    PublishOnly,
    Member,
    Outcast,
}

impl StoredRecord for AffiliationName {}

#[derive(Serialize, Deserialize)]
pub(super) struct ItemRecord {
    id: String,
    publisher: String,
    published: u64,
    /// Position at which the item's id was first published, if it was published again.
    created: Option<PositionRecord>,
    /// Bytes that the item adds to the total of its node.
    pub(super) bytes: u64,
    pub(super) content: StoredPayload,
}

impl StoredRecord for ItemRecord {}

/// Location of an item's payload.
#[derive(Serialize, Deserialize)]
pub(super) enum StoredPayload {
    /// The item has no payload.
    None,
    /// The payload is in the record of the item.
    Here(PayloadRecord),
    /// The payload is in this number of chunks.
    Chunks(u16),
}

#[derive(Serialize, Deserialize)]
pub(super) struct PayloadRecord {
    namespace: String,
    xml: String,
}

impl NodeRecord {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            name: node.id.as_str().into(),
            epoch: node.epoch.0,
            creator: node.creator.as_str().into(),
            created: node.created.0,
            config: ConfigRecord::of(&node.config),
            revision: RevisionRecord::of(&node.revision, node.creator.as_str()),
        }
    }

    pub(super) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    pub(super) fn set_config(&mut self, config: &NodeConfig) {
        self.config = ConfigRecord::of(config);
    }

    pub(super) fn set_revision(&mut self, revision: &ConfigRevision) {
        self.revision = RevisionRecord::of(revision, &self.creator);
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn needs_timers(&self) -> bool {
        self.config.needs_timers()
    }

    pub(super) fn into_creator(self) -> String {
        self.creator
    }

    /// Returns the node with the data of this record: without affiliations, subscriptions and counters.
    pub(super) fn to_node(&self, key: &[u8]) -> Result<Node, StoreError> {
        let mut node = Node::new(
            NodeId::parse(&self.name).map_err(|_| damaged(key))?,
            Epoch(self.epoch),
            self.config.to_config(key)?,
            BareJid::new(&self.creator).map_err(|_| damaged(key))?,
            Timestamp(self.created),
        );
        node.revision = self.revision.to_revision(key, &self.creator)?;
        Ok(node)
    }
}

impl RevisionRecord {
    fn of(revision: &ConfigRevision, creator: &str) -> Self {
        let other = |entity: &BareJid| {
            Some(entity.as_str()).filter(|entity| *entity != creator).map(str::to_owned)
        };
        Self {
            number: revision.number,
            changed_by: other(&revision.changed_by),
            base: revision.base,
            roster_owner: revision.roster_owner.as_ref().map_or(Some(String::new()), other),
            last_owner: revision.other_last_owner().map(BareJid::to_string),
        }
    }

    fn to_revision(&self, key: &[u8], creator: &str) -> Result<ConfigRevision, StoreError> {
        let parse = |jid: &str| BareJid::new(jid).map_err(|_| damaged(key));
        let changed_by = self.changed_by.as_deref().unwrap_or(creator);
        Ok(ConfigRevision {
            number: self.number,
            changed_by: parse(changed_by)?,
            base: self.base,
            last_owner: parse(self.last_owner.as_deref().unwrap_or(changed_by))?,
            roster_owner: match self.roster_owner.as_deref() {
                Some("") => None,
                owner => Some(parse(owner.unwrap_or(creator))?),
            },
        })
    }
}

impl AffiliationName {
    /// Returns the stored form; `None` for no affiliation, which is not stored.
    pub(super) fn of(affiliation: Affiliation) -> Option<Self> {
        match affiliation {
            Affiliation::Owner => Some(Self::Owner),
            Affiliation::Publisher => Some(Self::Publisher),
            Affiliation::PublishOnly => Some(Self::PublishOnly),
            Affiliation::Member => Some(Self::Member),
            Affiliation::None => None,
            Affiliation::Outcast => Some(Self::Outcast),
        }
    }

    pub(super) fn to_affiliation(self) -> Affiliation {
        match self {
            Self::Owner => Affiliation::Owner,
            Self::Publisher => Affiliation::Publisher,
            Self::PublishOnly => Affiliation::PublishOnly,
            Self::Member => Affiliation::Member,
            Self::Outcast => Affiliation::Outcast,
        }
    }
}

impl AffiliationRecord {
    pub(super) fn of(entity: &BareJid, affiliation: AffiliationName) -> Self {
        Self { entity: entity.as_str().into(), affiliation }
    }

    pub(super) fn entity(&self, key: &[u8]) -> Result<BareJid, StoreError> {
        BareJid::new(&self.entity).map_err(|_| damaged(key))
    }

    pub(super) fn affiliation(&self) -> Affiliation {
        self.affiliation.to_affiliation()
    }
}

impl ItemRecord {
    pub(super) fn of(item: &Item, created: ItemPosition, content: StoredPayload) -> Self {
        Self {
            id: item.id.as_str().into(),
            publisher: item.publisher.as_str().into(),
            published: item.published.0,
            created: (created != item.position()).then(|| created.into()),
            bytes: item.size() as u64,
            content,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn published(&self) -> Timestamp {
        Timestamp(self.published)
    }

    /// Returns the position at which the item's id was first published.
    pub(super) fn created_at(&self, position: ItemPosition) -> ItemPosition {
        self.created.map_or(position, Into::into)
    }

    pub(super) fn to_item(
        &self,
        key: &[u8],
        epoch: Epoch,
        at: ItemPosition,
        payload: Option<PayloadRecord>,
    ) -> Result<Item, StoreError> {
        Ok(Item {
            id: ItemId::parse(&self.id).map_err(|_| damaged(key))?,
            event_id: EventId { epoch, sequence: at.sequence },
            index: at.index,
            created: self.created_at(at),
            publisher: BareJid::new(&self.publisher).map_err(|_| damaged(key))?,
            published: Timestamp(self.published),
            payload: payload.map(PayloadRecord::into_payload),
        })
    }
}

impl PayloadRecord {
    pub(super) fn of(payload: &Payload) -> Self {
        Self { namespace: payload.namespace().into(), xml: payload.xml().into() }
    }

    /// Length of the encoded content in bytes.
    pub(super) fn len(&self) -> usize {
        self.namespace.len() + self.xml.len()
    }

    pub(super) fn into_payload(self) -> Payload {
        Payload::new(self.xml, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In records that lack the field `roster_owner`, the roster of the creator gives access. In records that lack the
    /// field `last_owner`, the last owner is the entity that last changed the configuration.
    #[test]
    fn a_revision_without_its_last_fields_is_read() {
        let changed_by = Some("b@x".to_owned());
        let (roster_owner, last_owner) = (None, None);
        let record = RevisionRecord { number: 300, changed_by, base: 2, roster_owner, last_owner };
        let bytes = postcard::to_stdvec(&record).unwrap();
        for missing in 0..=2 {
            let read: RevisionRecord =
                postcard::from_bytes(&bytes[..bytes.len() - missing]).unwrap();
            let revision = read.to_revision(b"n", "a@x").unwrap();
            assert_eq!(revision.roster_owner, Some(BareJid::new("a@x").unwrap()));
            assert_eq!((revision.number, revision.changed_by.as_str()), (300, "b@x"));
            assert_eq!(revision.last_owner, revision.changed_by);
        }
    }

    /// If the record of a deleted node lacks the field `account`, the record counts toward the limits of the first
    /// owner.
    #[test]
    fn a_deleted_node_without_an_account_is_read() {
        let record = FormerRecord {
            number: NodeNumber(1),
            deleted: 2,
            owners: vec![[3; 20]],
            account: None,
        };
        let bytes = postcard::to_stdvec(&record).unwrap();
        for bytes in [&bytes[..], &bytes[..bytes.len() - 1]] {
            let read: FormerRecord = postcard::from_bytes(bytes).unwrap();
            assert_eq!(
                (read.share(), read.place()),
                (Some(OwnerHash([3; 20])), (2, NodeNumber(1)))
            );
        }
        let record = FormerRecord { account: Some([4; 20]), ..record };
        let bytes = postcard::to_stdvec(&record).unwrap();
        let read: FormerRecord = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(read.share(), Some(OwnerHash([4; 20])));
    }
}
