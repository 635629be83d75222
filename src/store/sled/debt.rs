//! What is owed, as it lies on disk.

use jid::{BareJid, Jid};
use serde::{Deserialize, Serialize};

use crate::{
    pubsub::{
        Audience, Epoch, Event, EventItem, ItemId, NodeId, Notification, NotificationType, Place,
        Timestamp,
    },
    store::{Debt, StoreError},
};

use super::{
    keys::Number,
    record::{ConfigRecord, PayloadRecord, damaged},
};

/// The length of a part of what is owed.
pub(super) const DEBT_CHUNK_BYTES: usize = 3500;

/// A notification that is owed.
#[derive(Serialize, Deserialize)]
pub(super) struct DebtRecord {
    /// The node's number, under which its subscribers stand.
    pub(super) number: Number,
    node: String,
    epoch: u64,
    seq: u64,
    event: EventRecord,
    /// The only recipient; without one, all who were subscribed.
    one: Option<String>,
    normal_messages: bool,
    reply_to: Vec<String>,
    happened: u64,
    is_last_item: bool,
}

#[derive(Serialize, Deserialize)]
enum EventRecord {
    Configured(Option<Box<ConfigRecord>>),
    Deleted(Option<String>),
    Published(Vec<EventItemRecord>),
    Purged,
    Retracted(Vec<String>),
}

#[derive(Serialize, Deserialize)]
struct EventItemRecord {
    id: String,
    publisher: String,
    payload: Option<PayloadRecord>,
}

/// What was told in part, and which number the next debt has.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ToldRecord {
    pub(super) next: u64,
    /// A debt, and the last recipient of it who was told.
    partly: Option<(u64, String)>,
}

impl ToldRecord {
    pub(super) fn of(next: u64, partly: Option<&(Debt, Jid)>) -> Self {
        let partly = partly.map(|(Debt(debt), jid)| (*debt, jid.as_str().into()));
        Self { next, partly }
    }

    /// The debt that was told in part, and the last recipient who was.
    pub(super) fn partly(&self, key: &[u8]) -> Result<Option<(u64, Jid)>, StoreError> {
        let read =
            |(debt, jid): &(u64, String)| Ok((*debt, Jid::new(jid).map_err(|_| damaged(key))?));
        self.partly.as_ref().map(read).transpose()
    }
}

impl DebtRecord {
    pub(super) fn of(number: Number, notification: &Notification) -> Self {
        Self {
            number,
            node: notification.node.as_str().into(),
            epoch: notification.place.epoch.0,
            seq: notification.place.seq,
            event: EventRecord::of(&notification.event),
            one: match &notification.audience {
                Audience::One(jid) => Some(jid.as_str().into()),
                Audience::Subscribers => None,
            },
            normal_messages: match notification.notification_type {
                NotificationType::Headline => false,
                NotificationType::Normal => true,
            },
            reply_to: notification.reply_to.iter().map(|jid| jid.as_str().into()).collect(),
            happened: notification.happened.0,
            is_last_item: notification.is_last_item,
        }
    }

    pub(super) fn is_at(&self, node: &NodeId) -> bool {
        self.node == node.as_str()
    }

    pub(super) fn into_notification(self, key: &[u8]) -> Result<Notification, StoreError> {
        let jid = |jid: &str| Jid::new(jid).map_err(|_| damaged(key));
        let reply_to = self.reply_to.iter().map(|jid| bare(key, jid)).collect::<Result<_, _>>()?;
        Ok(Notification {
            node: NodeId::parse(&self.node).map_err(|_| damaged(key))?,
            place: Place { epoch: Epoch(self.epoch), seq: self.seq },
            event: self.event.into_event(key)?,
            audience: match &self.one {
                Some(one) => Audience::One(jid(one)?),
                None => Audience::Subscribers,
            },
            notification_type: if self.normal_messages {
                NotificationType::Normal
            } else {
                NotificationType::Headline
            },
            reply_to,
            happened: Timestamp(self.happened),
            is_last_item: self.is_last_item,
        })
    }
}

impl EventRecord {
    fn of(event: &Event) -> Self {
        match event {
            Event::Configured(config) => {
                Self::Configured(config.as_deref().map(|config| Box::new(ConfigRecord::of(config))))
            }
            Event::Deleted { redirect } => Self::Deleted(redirect.clone()),
            Event::Published(items) => Self::Published(
                items
                    .iter()
                    .map(|item| EventItemRecord {
                        id: item.id.as_str().into(),
                        publisher: item.publisher.as_str().into(),
                        payload: item.payload.as_ref().map(PayloadRecord::of),
                    })
                    .collect(),
            ),
            Event::Purged => Self::Purged,
            Event::Retracted(ids) => {
                Self::Retracted(ids.iter().map(|id| id.as_str().into()).collect())
            }
        }
    }

    fn into_event(self, key: &[u8]) -> Result<Event, StoreError> {
        let item_id = |id: &str| ItemId::parse(id).map_err(|_| damaged(key));
        Ok(match self {
            Self::Configured(config) => {
                let config = config.map(|config| config.to_config(key)).transpose()?;
                Event::Configured(config.map(Box::new))
            }
            Self::Deleted(redirect) => Event::Deleted { redirect },
            Self::Published(items) => {
                let item = |item: EventItemRecord| {
                    Ok(EventItem {
                        id: item_id(&item.id)?,
                        publisher: bare(key, &item.publisher)?,
                        payload: item.payload.map(PayloadRecord::into_payload),
                    })
                };
                Event::Published(items.into_iter().map(item).collect::<Result<_, StoreError>>()?)
            }
            Self::Purged => Event::Purged,
            Self::Retracted(ids) => {
                Event::Retracted(ids.iter().map(|id| item_id(id)).collect::<Result<_, _>>()?)
            }
        })
    }
}

fn bare(key: &[u8], jid: &str) -> Result<BareJid, StoreError> {
    BareJid::new(jid).map_err(|_| damaged(key))
}
