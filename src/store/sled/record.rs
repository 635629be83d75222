//! What lies on disk: records of the store's own, each with a version byte and a checksum over its
//! key and content. The domain types may change without touching them.

use jid::{BareJid, Jid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    pubsub::{
        AccessModel, Affiliation, Epoch, Item, ItemId, ItemReply, MaxItems, Node, NodeConfig,
        NodeId, NotificationType, Payload, Place, PublishModel, SendLastPublishedItem, Timestamp,
    },
    store::StoreError,
};

use super::keys::Spot;

/// The version of the records' layout.
pub(super) const VERSION: u8 = 6;

/// Writes a record for its key: version, content, checksum.
pub(super) fn encode<T: Serialize>(key: &[u8], record: &T) -> Result<Vec<u8>, StoreError> {
    let bytes = postcard::to_stdvec(record)
        .map_err(|error| StoreError::Failed(format!("cannot write a record: {error}")))?;
    Ok(encode_content(key, &bytes))
}

/// Surrounds the content of a record.
pub(super) fn encode_content(key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 5);
    bytes.push(VERSION);
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&checksum(key, &bytes).to_le_bytes());
    bytes
}

/// Reads the record of a key.
pub(super) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    let (content, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged(key))?;
    if checksum(key, content).to_le_bytes() != *sum {
        return Err(damaged(key));
    }
    match content.split_first() {
        Some((&VERSION, record)) => postcard::from_bytes(record).map_err(|_| damaged(key)),
        Some((&found, _)) => Err(StoreError::Version { found, expected: VERSION }),
        None => Err(damaged(key)),
    }
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

/// What a row adds to the sum that it is part of.
pub(super) fn weight(value: &[u8]) -> u64 {
    value.last_chunk::<4>().map_or(0, |sum| u64::from(u32::from_le_bytes(*sum)))
}

/// Names a record that is not what was written.
pub(super) fn damaged(key: &[u8]) -> StoreError {
    let table = key.first().map_or('?', |byte| char::from(*byte));
    let rest: String = key.iter().skip(1).map(|byte| format!("{byte:02x}")).collect();
    StoreError::Damaged(format!("{table} {rest}"))
}

#[derive(Serialize, Deserialize)]
pub(super) struct NodeRecord {
    name: String,
    epoch: u64,
    creator: String,
    created: u64,
    config: ConfigRecord,
}

#[derive(Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct ConfigRecord {
    access_model: AccessModelRecord,
    body_xslt: String,
    contact: Vec<String>,
    dataform_xslt: String,
    deliver_notifications: bool,
    deliver_payloads: bool,
    description: String,
    itemreply: ItemReplyRecord,
    language: String,
    /// `None` is `max`.
    max_items: Option<u32>,
    max_payload_size: u32,
    normal_messages: bool,
    notify_config: bool,
    notify_delete: bool,
    notify_retract: bool,
    persist_items: bool,
    publish_model: PublishModelRecord,
    send_last_on_sub: bool,
    subscribe: bool,
    title: String,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
enum AccessModelRecord {
    Open,
    Whitelist,
}

#[derive(Serialize, Deserialize)]
enum ItemReplyRecord {
    None,
    Owner,
    Publisher,
}

#[derive(Serialize, Deserialize)]
enum PublishModelRecord {
    Open,
    Publishers,
    Subscribers,
}

/// What took the place of a deleted node.
#[derive(Serialize, Deserialize)]
pub(super) struct RedirectRecord {
    /// The deleted node's number.
    pub(super) number: u64,
    pub(super) uri: String,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Counters {
    /// The position of the node's newest event.
    pub(super) seq: u64,
    /// How many items it has.
    pub(super) items: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// The sum over the rows that belong to it.
    pub(super) sum: u64,
    /// The newest part of its subscriptions.
    pub(super) part: u32,
}

/// What the store says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Total {
    /// A number that no other store has.
    pub(super) store: u64,
    /// How many groups were committed.
    pub(super) commit: u64,
    /// The sum over the index.
    pub(super) sum: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AffiliationRecord {
    entity: String,
    affiliation: AffiliationName,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum AffiliationName {
    Owner,
    Publisher,
    PublishOnly,
    Member,
    Outcast,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ItemRecord {
    id: String,
    publisher: String,
    published: u64,
    /// What it adds to the node's bytes.
    pub(super) bytes: u64,
    pub(super) content: Content,
}

/// Where an item's payload stands.
#[derive(Serialize, Deserialize)]
pub(super) enum Content {
    /// There is none.
    None,
    /// Here.
    Here(PayloadRecord),
    /// In this many chunks.
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
        }
    }

    pub(super) fn set_config(&mut self, config: &NodeConfig) {
        self.config = ConfigRecord::of(config);
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn into_creator(self) -> String {
        self.creator
    }

    /// The node, without what stands in other records.
    pub(super) fn to_node(&self, key: &[u8]) -> Result<Node, StoreError> {
        Ok(Node::bare(
            NodeId::parse(&self.name).map_err(|_| damaged(key))?,
            Epoch(self.epoch),
            self.config.to_config(key)?,
            BareJid::new(&self.creator).map_err(|_| damaged(key))?,
            Timestamp(self.created),
        ))
    }
}

impl ConfigRecord {
    pub(super) fn of(config: &NodeConfig) -> Self {
        Self {
            access_model: match config.access_model {
                AccessModel::Open => AccessModelRecord::Open,
                AccessModel::Whitelist => AccessModelRecord::Whitelist,
            },
            body_xslt: config.body_xslt.clone(),
            contact: config.contact.iter().map(|jid| jid.as_str().into()).collect(),
            dataform_xslt: config.dataform_xslt.clone(),
            deliver_notifications: config.deliver_notifications,
            deliver_payloads: config.deliver_payloads,
            description: config.description.clone(),
            itemreply: match config.itemreply {
                ItemReply::None => ItemReplyRecord::None,
                ItemReply::Owner => ItemReplyRecord::Owner,
                ItemReply::Publisher => ItemReplyRecord::Publisher,
            },
            language: config.language.clone(),
            max_items: match config.max_items {
                MaxItems::Max => None,
                MaxItems::Number(n) => Some(n),
            },
            max_payload_size: config.max_payload_size,
            normal_messages: config.notification_type == NotificationType::Normal,
            notify_config: config.notify_config,
            notify_delete: config.notify_delete,
            notify_retract: config.notify_retract,
            persist_items: config.persist_items,
            publish_model: match config.publish_model {
                PublishModel::Open => PublishModelRecord::Open,
                PublishModel::Publishers => PublishModelRecord::Publishers,
                PublishModel::Subscribers => PublishModelRecord::Subscribers,
            },
            send_last_on_sub: config.send_last_published_item == SendLastPublishedItem::OnSub,
            subscribe: config.subscribe,
            title: config.title.clone(),
            r#type: config.r#type.clone(),
        }
    }

    pub(super) fn to_config(&self, key: &[u8]) -> Result<NodeConfig, StoreError> {
        let jid = |jid: &String| Jid::new(jid).map_err(|_| damaged(key));
        Ok(NodeConfig {
            access_model: match self.access_model {
                AccessModelRecord::Open => AccessModel::Open,
                AccessModelRecord::Whitelist => AccessModel::Whitelist,
            },
            body_xslt: self.body_xslt.clone(),
            contact: self.contact.iter().map(jid).collect::<Result<_, _>>()?,
            dataform_xslt: self.dataform_xslt.clone(),
            deliver_notifications: self.deliver_notifications,
            deliver_payloads: self.deliver_payloads,
            description: self.description.clone(),
            itemreply: match self.itemreply {
                ItemReplyRecord::None => ItemReply::None,
                ItemReplyRecord::Owner => ItemReply::Owner,
                ItemReplyRecord::Publisher => ItemReply::Publisher,
            },
            language: self.language.clone(),
            max_items: self.max_items.map_or(MaxItems::Max, MaxItems::Number),
            max_payload_size: self.max_payload_size,
            notification_type: if self.normal_messages {
                NotificationType::Normal
            } else {
                NotificationType::Headline
            },
            notify_config: self.notify_config,
            notify_delete: self.notify_delete,
            notify_retract: self.notify_retract,
            persist_items: self.persist_items,
            publish_model: match self.publish_model {
                PublishModelRecord::Open => PublishModel::Open,
                PublishModelRecord::Publishers => PublishModel::Publishers,
                PublishModelRecord::Subscribers => PublishModel::Subscribers,
            },
            send_last_published_item: if self.send_last_on_sub {
                SendLastPublishedItem::OnSub
            } else {
                SendLastPublishedItem::Never
            },
            subscribe: self.subscribe,
            title: self.title.clone(),
            r#type: self.r#type.clone(),
        })
    }
}

impl AffiliationName {
    /// `None` stands in no record.
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
    pub(super) fn of(item: &Item, content: Content) -> Self {
        Self {
            id: item.id.as_str().into(),
            publisher: item.publisher.as_str().into(),
            published: item.published.0,
            bytes: item.size() as u64,
            content,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn to_item(
        &self,
        key: &[u8],
        epoch: Epoch,
        (seq, index): Spot,
        payload: Option<PayloadRecord>,
    ) -> Result<Item, StoreError> {
        Ok(Item {
            id: ItemId::parse(&self.id).map_err(|_| damaged(key))?,
            place: Place { epoch, seq },
            index,
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

    pub(super) fn into_payload(self) -> Payload {
        Payload::new(self.xml, self.namespace)
    }
}
