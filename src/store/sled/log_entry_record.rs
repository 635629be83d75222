//! Stored records of log entries.

use std::{collections::HashMap, mem, sync::Arc};

use jid::{BareJid, Jid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::store::{LogPosition, StoreError};
use gjallar_pubsub::{
    Affiliation, Audience, DeliveryVariant, Epoch, Event, EventId, EventItem, ItemId, LogEntry,
    NodeId, NotificationType, Recipients, Sequence, ShowSet, SubId, SubscriptionState, Timestamp,
};

use super::{
    config_record::ConfigRecord,
    keys::NodeNumber,
    record::{AffiliationName, PayloadRecord, StoredRecord, damaged},
};

/// Bytes of a chunk of log entries.
pub(super) const LOG_CHUNK_BYTES: usize = 3500;
/// Maximum bytes of the partly delivered log entries in a [`CursorRecord`].
const MAX_PARTLY_BYTES: usize = 3500;
/// Approximate bytes of a partly delivered log entry in a [`CursorRecord`], without its JID.
const PARTLY_BYTES: usize = 12;

/// An event with its audience.
#[derive(Serialize, Deserialize)]
pub(super) struct LogEntryRecord {
    /// Fields that exist since layout 9. The other fields were added in layout 10.
    entry: EntryRecord,
    /// Version of the node that determines the audience: only subscriptions that began before this version receive the
    /// entry.
    as_of: u64,
    /// Nonce of an item that is sent again. The nonce makes the message ids differ from those of the first delivery.
    nonce: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct EntryRecord {
    /// Number of the node. The keys of the node's subscribers contain this number.
    number: NodeNumber,
    node: String,
    epoch: u64,
    sequence: u64,
    index: u16,
    event: EventRecord,
    audience: AudienceRecord,
    has_body: bool,
    subids: Vec<String>,
    shows: Option<u8>,
    normal_messages: bool,
    /// Always empty in new records. Before layout 10 the field had addresses (XEP-0033), which are no longer sent.
    reply_to: Vec<String>,
    happened: u64,
    is_last_item: bool,
}

impl StoredRecord for Vec<(u64, LogEntryRecord)> {
    fn from_layout_9(bytes: &[u8]) -> postcard::Result<Self> {
        let entries: Vec<(u64, EntryRecord)> = postcard::from_bytes(bytes)?;
        Ok(entries.into_iter().map(|(position, entry)| (position, entry.into_record())).collect())
    }
}

/// Nonce given to entries of layout 9 that send an item again, because layout 9 stores no nonce. It differs from 0, the
/// nonce of the first delivery.
const NONCE_OF_LAYOUT_9: u64 = 1;

impl EntryRecord {
    /// Converts a record of layout 9. In layout 9 the audience was resolved as of the event's sequence, not a version.
    /// JIDs in an explicit list of subscribers (`Listed`) received the entry if they were still subscribed.
    fn into_record(self) -> LogEntryRecord {
        let as_of = match self.audience {
            AudienceRecord::Listed(_) | AudienceRecord::ListedWithSubIds(_) => u64::MAX,
            AudienceRecord::Entities(_)
            | AudienceRecord::Interested(_)
            | AudienceRecord::SameAs(_)
            | AudienceRecord::Subscribers => self.sequence,
        };
        let nonce = self.is_last_item.then_some(NONCE_OF_LAYOUT_9);
        LogEntryRecord { entry: self, as_of, nonce }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum AudienceRecord {
    Entities(Vec<String>),
    Listed(Shared<Vec<String>>),
    Subscribers,
    /// JIDs, each with its SubIDs.
    ListedWithSubIds(Shared<Vec<(String, Vec<String>)>>),
    Interested(Shared<Vec<String>>),
    /// Same list as that of the log entry at this position, which is stored earlier in the same group.
    SameAs(u64),
}

/// Value that records share in memory. Each record serializes it inline.
#[derive(PartialEq, Eq, Hash)]
struct Shared<T>(Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|what| Self(Arc::new(what)))
    }
}

impl AudienceRecord {
    fn of(audience: &Audience) -> Self {
        let names = |jids: &Recipients| jids.iter().map(Jid::to_string).collect();
        match audience {
            Audience::Explicit(jids) => Self::Entities(names(jids)),
            Audience::Interested(jids) => Self::Interested(Shared(Arc::new(names(jids)))),
            Audience::Listed(jids) if jids.have_subids() => {
                let subids = |subids: &[SubId]| subids.iter().map(SubId::to_string).collect();
                let listed = jids.iter_with_subids();
                let listed = listed.map(|(jid, of)| (jid.to_string(), subids(of))).collect();
                Self::ListedWithSubIds(Shared(Arc::new(listed)))
            }
            Audience::Listed(jids) => Self::Listed(Shared(Arc::new(names(jids)))),
            Audience::Subscribers => Self::Subscribers,
        }
    }

    fn to_audience(&self, key: &[u8]) -> Result<Audience, StoreError> {
        Ok(match self {
            Self::Entities(jids) => Audience::Explicit(all(key, jids)?),
            Self::Interested(jids) => Audience::Interested(all(key, &jids.0)?),
            Self::Listed(jids) => Audience::Listed(all(key, &jids.0)?),
            Self::Subscribers => Audience::Subscribers,
            Self::ListedWithSubIds(listed) => {
                let entity = |(jid, subids): &(String, Vec<String>)| {
                    let subids = subids.iter().map(|subid| SubId::new(subid)).collect();
                    Ok((full(key, jid)?, subids))
                };
                let listed = listed.0.iter().map(entity).collect::<Result<_, StoreError>>()?;
                Audience::Listed(Recipients::with_subids(listed))
            }
            Self::SameAs(_) => return Err(damaged(key)),
        })
    }

    /// Returns the memory address of the recipient list, which identifies the list. Returns `None` for kinds of
    /// audience whose lists are never shared.
    fn list(&self) -> Option<usize> {
        match self {
            Self::Listed(jids) | Self::Interested(jids) => Some(Arc::as_ptr(&jids.0).addr()),
            Self::ListedWithSubIds(listed) => Some(Arc::as_ptr(&listed.0).addr()),
            Self::Entities(_) | Self::SameAs(_) | Self::Subscribers => None,
        }
    }

    /// Approximate size in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Entities(jids) => jids.iter().map(|jid| 3 + jid.len()).sum(),
            Self::Interested(jids) | Self::Listed(jids) => {
                jids.0.iter().map(|jid| 3 + jid.len()).sum()
            }
            Self::Subscribers | Self::SameAs(_) => 0,
            Self::ListedWithSubIds(listed) => {
                let subids =
                    |subids: &[String]| subids.iter().map(|subid| 3 + subid.len()).sum::<usize>();
                listed.0.iter().map(|(jid, of)| 4 + jid.len() + subids(of)).sum()
            }
        }
    }
}

/// Audience records of one group of commits, by the kind of audience and the memory address of the recipient list. The
/// map keeps the lists alive, so that no other list gets the same address.
#[derive(Default)]
pub(super) struct AudienceRecords(
    HashMap<(mem::Discriminant<Audience>, usize), (Recipients, AudienceRecord)>,
);

/// Cache of the audiences that were read, so that equal audiences share memory.
#[derive(Default)]
pub(super) struct ReadAudiences(HashMap<AudienceRecord, Audience>);

/// Returns the number of records to write in one group. A group has at most `max` records, and ends with the record
/// whose addition makes its total size reach `max_bytes`. A record with the same list as an earlier record gets a
/// reference to the earlier record.
pub(super) fn take_together(
    entries: &mut [(u64, LogEntryRecord)],
    max: usize,
    max_bytes: usize,
) -> usize {
    let (mut number, mut bytes) = (0, 0);
    let mut lists = HashMap::new();
    for (position, record) in entries.iter_mut().take(max) {
        if bytes >= max_bytes {
            break;
        }
        if let Some(list) = record.entry.audience.list() {
            let first = *lists.entry(list).or_insert(*position);
            if first != *position {
                record.entry.audience = AudienceRecord::SameAs(first);
            }
        }
        bytes += record.len();
        number += 1;
    }
    number
}

/// Resolves shared lists of records that were read together.
pub(super) fn resolve(key: &[u8], entries: &mut [(u64, LogEntryRecord)]) -> Result<(), StoreError> {
    let mut lists = HashMap::new();
    for (position, LogEntryRecord { entry, .. }) in entries {
        if let AudienceRecord::SameAs(first) = entry.audience {
            let list: Option<&AudienceRecord> = lists.get(&first);
            entry.audience = list.cloned().ok_or_else(|| damaged(key))?;
        } else if entry.audience.list().is_some() {
            lists.insert(*position, entry.audience.clone());
        }
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
enum EventRecord {
    Affiliated(Option<AffiliationName>),
    Configured(Option<Box<ConfigRecord>>),
    Deleted(Option<String>),
    Published(Vec<EventItemRecord>),
    Purged,
    Requested(String),
    Retracted(Vec<String>),
    Subscription {
        jid: Option<String>,
        subid: Option<String>,
        state: StateRecord,
        expiry: Option<u64>,
    },
    Announced(String),
}

#[derive(Serialize, Deserialize)]
enum StateRecord {
    None,
    Pending,
    Subscribed,
}

#[derive(Serialize, Deserialize)]
struct EventItemRecord {
    id: String,
    /// JID that the item shows as its publisher; empty if it shows none.
    publisher: String,
    payload: Option<PayloadRecord>,
}

/// Partly delivered log entries, and the next log position.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct CursorRecord {
    pub(super) next: u64,
    /// Partly delivered log entries, each with its last recipient.
    partly: Vec<(u64, String)>,
}

impl StoredRecord for CursorRecord {}

impl CursorRecord {
    /// Returns the record updated with the partly delivered log entries `partly`. The earlier entries of the record are
    /// kept while they are pending, because an earlier process may have delivered part of an entry of which this
    /// process has sent nothing yet. If the entries do not all fit into a row, earlier entries are left out first.
    pub(super) fn followed_by(
        self,
        next: u64,
        partly: &[(LogPosition, Jid)],
        is_pending: impl Fn(u64) -> bool,
    ) -> Self {
        let is_replaced =
            |position| partly.iter().any(|(LogPosition(other), _)| *other == position);
        let earlier = self.partly.into_iter();
        let earlier =
            earlier.filter(|(position, _)| is_pending(*position) && !is_replaced(*position));
        let latest =
            partly.iter().map(|(LogPosition(position), jid)| (*position, jid.as_str().to_owned()));
        let mut bytes = 0;
        let fitting = latest.chain(earlier).take_while(|(_, jid)| {
            bytes += PARTLY_BYTES + jid.len();
            bytes <= MAX_PARTLY_BYTES
        });
        Self { next, partly: fitting.collect() }
    }

    /// Returns the partly delivered log entries, each with its last recipient.
    pub(super) fn partly(&self, key: &[u8]) -> Result<HashMap<u64, Jid>, StoreError> {
        let read = |(position, jid): &(u64, String)| {
            Ok((*position, Jid::new(jid).map_err(|_| damaged(key))?))
        };
        self.partly.iter().map(read).collect()
    }
}

impl LogEntryRecord {
    pub(super) fn of(
        number: NodeNumber,
        notification: &LogEntry,
        audiences: &mut AudienceRecords,
    ) -> Self {
        let audience = &notification.audience;
        let record = || AudienceRecord::of(audience);
        let audience = match audience {
            Audience::Explicit(jids) | Audience::Interested(jids) | Audience::Listed(jids) => {
                let key = (mem::discriminant(audience), jids.id());
                let (_, record) =
                    audiences.0.entry(key).or_insert_with(|| (jids.clone(), record()));
                record.clone()
            }
            Audience::Subscribers => record(),
        };
        let entry = EntryRecord {
            number,
            node: notification.node.as_str().into(),
            epoch: notification.event_id.epoch.0,
            sequence: notification.event_id.sequence.0,
            index: notification.index,
            event: EventRecord::of(&notification.event),
            audience,
            has_body: notification.variant.has_body,
            subids: notification.variant.subids.iter().map(SubId::to_string).collect(),
            shows: notification.variant.shows.map(ShowSet::bits),
            normal_messages: match notification.notification_type {
                NotificationType::Headline => false,
                NotificationType::Normal => true,
            },
            reply_to: Vec::new(),
            happened: notification.occurred_at.0,
            is_last_item: notification.nonce.is_some(),
        };
        Self { entry, as_of: notification.as_of, nonce: notification.nonce }
    }

    pub(super) fn set_epoch(&mut self, epoch: u64) {
        self.entry.epoch = epoch;
    }

    /// Returns the number of the node.
    pub(super) fn number(&self) -> NodeNumber {
        self.entry.number
    }

    /// Returns the approximate total bytes of the audience and the items.
    pub(super) fn len(&self) -> usize {
        self.entry.audience.len() + self.entry.event.len()
    }

    pub(super) fn is_at(&self, node: &NodeId) -> bool {
        self.entry.node == node.as_str()
    }

    pub(super) fn into_notification(
        self,
        key: &[u8],
        read: &mut ReadAudiences,
    ) -> Result<LogEntry, StoreError> {
        let Self { entry, as_of, nonce } = self;
        let audience = match read.0.get(&entry.audience) {
            Some(audience) => audience.clone(),
            None => {
                let audience = entry.audience.to_audience(key)?;
                if entry.audience.list().is_some() {
                    read.0.insert(entry.audience.clone(), audience.clone());
                }
                audience
            }
        };
        Ok(LogEntry {
            node: NodeId::parse(&entry.node).map_err(|_| damaged(key))?,
            event_id: EventId { epoch: Epoch(entry.epoch), sequence: Sequence(entry.sequence) },
            index: entry.index,
            event: entry.event.into_event(key)?,
            audience,
            variant: DeliveryVariant {
                has_body: entry.has_body,
                subids: entry.subids.iter().map(|subid| SubId::new(subid)).collect(),
                shows: entry.shows.map(ShowSet::from_bits),
            },
            notification_type: if entry.normal_messages {
                NotificationType::Normal
            } else {
                NotificationType::Headline
            },
            occurred_at: Timestamp(entry.happened),
            as_of,
            nonce,
        })
    }
}

impl EventRecord {
    fn len(&self) -> usize {
        let Self::Published(items) = self else { return 0 };
        let payload = |item: &EventItemRecord| item.payload.as_ref().map_or(0, PayloadRecord::len);
        items.iter().map(payload).sum()
    }

    fn of(event: &Event) -> Self {
        match event {
            Event::AffiliationChanged(affiliation) => {
                Self::Affiliated(AffiliationName::of(*affiliation))
            }
            Event::Announced(text) => Self::Announced(text.clone()),
            Event::Configured(config) => {
                Self::Configured(config.as_deref().map(|config| Box::new(ConfigRecord::of(config))))
            }
            Event::Deleted { redirect } => Self::Deleted(redirect.clone()),
            Event::Published(items) => Self::Published(
                items
                    .iter()
                    .map(|item| EventItemRecord {
                        id: item.id.as_str().into(),
                        publisher: item
                            .publisher
                            .as_ref()
                            .map(BareJid::to_string)
                            .unwrap_or_default(),
                        payload: item.payload.as_ref().map(PayloadRecord::of),
                    })
                    .collect(),
            ),
            Event::Purged => Self::Purged,
            Event::ApprovalRequested(jid) => Self::Requested(jid.as_str().into()),
            Event::Retracted(ids) => {
                Self::Retracted(ids.iter().map(|id| id.as_str().into()).collect())
            }
            Event::Subscription { jid, subid, state, expiry } => Self::Subscription {
                jid: jid.as_ref().map(Jid::to_string),
                subid: subid.as_ref().map(SubId::to_string),
                state: StateRecord::of(*state),
                expiry: expiry.map(|expiry| expiry.0),
            },
        }
    }

    fn into_event(self, key: &[u8]) -> Result<Event, StoreError> {
        let item_id = |id: &str| ItemId::parse(id).map_err(|_| damaged(key));
        Ok(match self {
            Self::Affiliated(name) => Event::AffiliationChanged(
                name.map_or(Affiliation::None, AffiliationName::to_affiliation),
            ),
            Self::Announced(text) => Event::Announced(text),
            Self::Configured(config) => {
                let config = config.map(|config| config.to_config(key)).transpose()?;
                Event::Configured(config.map(Box::new))
            }
            Self::Deleted(redirect) => Event::Deleted { redirect },
            Self::Published(items) => {
                let item = |item: EventItemRecord| {
                    let publisher = Some(&item.publisher).filter(|jid| !jid.is_empty());
                    Ok(EventItem {
                        id: item_id(&item.id)?,
                        publisher: publisher.map(|jid| bare(key, jid)).transpose()?,
                        payload: item.payload.map(PayloadRecord::into_payload),
                    })
                };
                Event::Published(items.into_iter().map(item).collect::<Result<_, StoreError>>()?)
            }
            Self::Purged => Event::Purged,
            Self::Requested(jid) => Event::ApprovalRequested(full(key, &jid)?),
            Self::Retracted(ids) => {
                Event::Retracted(ids.iter().map(|id| item_id(id)).collect::<Result<_, _>>()?)
            }
            Self::Subscription { jid, subid, state, expiry } => Event::Subscription {
                jid: jid.map(|jid| full(key, &jid)).transpose()?,
                subid: subid.as_deref().map(SubId::new),
                state: state.to_state(),
                expiry: expiry.map(Timestamp),
            },
        })
    }
}

impl StateRecord {
    fn of(state: SubscriptionState) -> Self {
        match state {
            SubscriptionState::None => Self::None,
            SubscriptionState::Pending => Self::Pending,
            SubscriptionState::Subscribed => Self::Subscribed,
        }
    }

    fn to_state(&self) -> SubscriptionState {
        match self {
            Self::None => SubscriptionState::None,
            Self::Pending => SubscriptionState::Pending,
            Self::Subscribed => SubscriptionState::Subscribed,
        }
    }
}

fn all(key: &[u8], jids: &[String]) -> Result<Recipients, StoreError> {
    jids.iter().map(|jid| full(key, jid)).collect()
}

fn full(key: &[u8], jid: &str) -> Result<Jid, StoreError> {
    Jid::new(jid).map_err(|_| damaged(key))
}

fn bare(key: &[u8], jid: &str) -> Result<BareJid, StoreError> {
    BareJid::new(jid).map_err(|_| damaged(key))
}
