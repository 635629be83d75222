//! Lines of an archive.

use std::collections::BTreeMap;

use jid::{BareJid, Jid};
use serde::{Deserialize, Serialize};

use crate::xmpp::stanza::forms::{node_config, subscribe_options};
use gjallar_pubsub::{
    Affiliation, Audience, ConfigRevision, DeliveryVariant, Epoch, Event, EventId, EventItem,
    FormerNode, Item, ItemId, ItemPosition, Limits, LogEntry, Node, NodeConfig, NodeId,
    NotificationType, OwnerHash, Payload, Recipients, Sequence, SubId, SubscriptionState,
    Timestamp,
};

use super::subscription_line::ConfiguredSubscriptionLine;

/// Line of an archive. Times are milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum ArchiveLine {
    /// First line.
    Archive {
        format: u32,
    },
    /// Node. The following lines belong to this node, until the line of the next node.
    Node(NodeLine),
    Affiliation {
        jid: BareJid,
        affiliation: String,
    },
    /// Subscription; `since` is the version of the node at which the subscription began.
    Subscription {
        jid: Jid,
        since: u64,
        /// `true` if an owner made the subscription.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        enrolled: bool,
        /// `true` if the subscription needs the approval of an owner.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pending: bool,
        /// Options and SubIDs, and the version at which the subscription got them.
        #[serde(rename = "special", default, skip_serializing_if = "Option::is_none")]
        configured: Option<ConfiguredSubscriptionLine>,
    },
    Item(ItemLine),
    /// Entity that refused to share its presence with the service. These lines precede the first node.
    #[serde(rename = "presence-refusal")]
    PresenceRefusal {
        jid: BareJid,
    },
    /// Pending log entry.
    Event(Box<LogEntryLine>),
    /// Last line, with the number of lines before it.
    End {
        lines: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeLine {
    pub(super) node: String,
    pub(super) epoch: String,
    #[serde(rename = "seq")]
    pub(super) sequence: u64,
    /// Number of the node's last commit. Archives of layout 9 lack this field. The `sequence` of the node is used
    /// instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    pub(super) creator: BareJid,
    pub(super) created: u64,
    pub(super) config: ConfigFields,
    /// Revision of the configuration; `None` if the configuration was never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<RevisionLine>,
    /// `true` if the node is deleted, and the archive has only its pending log entries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
    /// Redirect URI of a deleted node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) redirect: Option<String>,
    /// Time of the deletion, if a record of it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deleted_at: Option<u64>,
    /// Hashes of the bare JIDs of the owners at the deletion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) owners: Vec<String>,
    /// Hash of the account toward whose limits on redirects and reserved names the deleted node counts; `None` if this
    /// account is the first of `owners`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<String>,
}

/// A [`ConfigRevision`]: the number of changes of a node's configuration, and the entities that made the last changes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RevisionLine {
    number: u64,
    changed_by: BareJid,
    base: u64,
    /// Owner whose roster grants access; `None` if this is the creator, or if `no_roster_owner` is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roster_owner: Option<BareJid>,
    /// `true` if no owner's roster grants access.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_roster_owner: bool,
    /// Owner who made the latest change by an owner; `None` if this owner is the entity in `changed_by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_owner: Option<BareJid>,
}

/// Fields of the form `pubsub#node_config`.
type ConfigFields = BTreeMap<String, String>;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PayloadLine {
    xml: String,
    namespace: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ItemLine {
    id: String,
    #[serde(rename = "seq")]
    sequence: u64,
    index: u16,
    /// Sequence and index of the item's first publication; `None` if no later publication has overwritten the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<(u64, u16)>,
    publisher: BareJid,
    published: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadLine>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LogEntryLine {
    #[serde(rename = "seq")]
    pub(super) sequence: u64,
    happened: u64,
    /// Index of the log entry among the entries with the same sequence.
    #[serde(default, skip_serializing_if = "is_zero")]
    index: u16,
    event: EventLineContent,
    /// The only recipient, who receives the entry if subscribed. Only archives of versions without the field `listed`
    /// have this field.
    #[serde(default, skip_serializing)]
    to: Option<Jid>,
    /// Recipients that receive the entry if they are subscribed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listed: Option<Vec<Jid>>,
    /// For each recipient in `listed`, the SubIDs of the subscriptions that the entry is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listed_subids: Option<Vec<Vec<String>>>,
    /// Recipients that receive the entry even if they are not subscribed. Without any list of recipients the audience
    /// is all entitled subscribers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entities: Option<Vec<Jid>>,
    /// Recipients with an implicit subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interested: Option<Vec<Jid>>,
    /// `true` if the notification has a body.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    body: bool,
    /// SubIDs of the recipient's subscriptions that the entry is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subids: Vec<String>,
    /// Presence states in which the notification is sent, as in the subscription options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shows: Option<String>,
    normal: bool,
    /// Written empty, and ignored on import: older versions stored addresses to reply to (XEP-0033) here.
    #[serde(default)]
    reply_to: Vec<BareJid>,
    last_item: bool,
    /// Number that makes the message ids differ from those of the item's first notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<u64>,
    /// Version of the node: subscriptions that began before this version receive the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    as_of: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventLineContent {
    Affiliated(String),
    Announced(String),
    Configured(Option<ConfigFields>),
    Deleted {
        redirect: Option<String>,
    },
    Published(Vec<EventItemLine>),
    Purged,
    Requested(Jid),
    Retracted(Vec<String>),
    Subscription {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jid: Option<Jid>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subid: Option<String>,
        state: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expiry: Option<u64>,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero(index: &u16) -> bool {
    *index == 0
}

#[derive(Debug, Serialize, Deserialize)]
struct EventItemLine {
    id: String,
    /// JID that the item shows as its publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publisher: Option<BareJid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadLine>,
}

fn config_of(config: &NodeConfig) -> ConfigFields {
    node_config::values(config).into_iter().collect()
}

fn config_from(fields: &ConfigFields) -> Result<NodeConfig, String> {
    let limits = Limits { max_items: u32::MAX, max_payload_bytes: u32::MAX, ..Limits::default() };
    let mut settings = Vec::new();
    for (var, value) in fields {
        settings.extend(node_config::setting(var, value).map_err(|refusal| refusal.to_string())?);
    }
    NodeConfig::initial(&limits).with(&settings, &limits).map_err(|refusal| refusal.to_string())
}

impl NodeLine {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            node: node.id.to_string(),
            epoch: format!("{:016x}", node.epoch.0),
            sequence: node.sequence.0,
            version: Some(node.version),
            creator: node.creator.clone(),
            created: node.created.0,
            config: config_of(&node.config),
            revision: RevisionLine::of(node),
            deleted: false,
            redirect: None,
            deleted_at: None,
            owners: Vec::new(),
            account: None,
        }
    }

    /// Returns `true` for a node of an archive that recorded no revisions.
    pub(super) fn inherits_revision(&self) -> bool {
        self.version.is_none() && self.revision.is_none()
    }

    /// Returns the number of the node's last commit.
    pub(super) fn version(&self) -> u64 {
        self.version.unwrap_or(self.sequence)
    }

    /// Returns the line of a deleted node without pending log entries.
    pub(super) fn former(node: &Node, former: FormerNode) -> Self {
        Self {
            deleted: true,
            deleted_at: Some(former.deleted.0).filter(|at| *at > 0),
            owners: former.owners.iter().map(OwnerHash::to_string).collect(),
            account: former.account.as_ref().map(OwnerHash::to_string),
            redirect: former.redirect,
            ..Self::of(node)
        }
    }

    /// Returns the record of a deleted node, if the line has one.
    pub(super) fn to_former(&self) -> Result<Option<FormerNode>, String> {
        if self.redirect.is_none() && self.deleted_at.is_none() {
            return Ok(None);
        }
        if self.owners.len() > FormerNode::MAX_OWNERS {
            return Err(format!("owners: at most {}", FormerNode::MAX_OWNERS));
        }
        let hash = |text: &String| OwnerHash::parse(text).ok_or_else(|| "owners".to_owned());
        let owners = self.owners.iter().map(hash).collect::<Result<_, _>>()?;
        let account = self.account.as_ref().map(hash).transpose()?;
        let deleted = Timestamp(self.deleted_at.unwrap_or_default());
        Ok(Some(FormerNode { redirect: self.redirect.clone(), deleted, owners, account }))
    }

    pub(super) fn to_node(&self) -> Result<Node, String> {
        let id = NodeId::parse(&self.node).map_err(|refusal| refusal.to_string())?;
        let epoch = u64::from_str_radix(&self.epoch, 16).map_err(|_| "epoch".to_owned())?;
        let config = config_from(&self.config)?;
        let created = Timestamp(self.created);
        let mut node = Node::new(id, Epoch(epoch), config, self.creator.clone(), created);
        if let Some(line) = &self.revision {
            node.revision = ConfigRevision {
                number: line.number,
                changed_by: line.changed_by.clone(),
                base: line.base,
                last_owner: line.last_owner.as_ref().unwrap_or(&line.changed_by).clone(),
                roster_owner: (!line.no_roster_owner)
                    .then(|| line.roster_owner.as_ref().unwrap_or(&self.creator).clone()),
            };
        }
        Ok(node)
    }
}

impl RevisionLine {
    /// Returns the line of a node's revision; `None` if the configuration was never changed.
    fn of(node: &Node) -> Option<Self> {
        let Node { creator, revision, .. } = node;
        let roster_owner = revision.roster_owner.as_ref().filter(|owner| *owner != creator);
        let is_first = *revision == ConfigRevision::first(creator.clone());
        (!is_first).then(|| Self {
            number: revision.number,
            changed_by: revision.changed_by.clone(),
            base: revision.base,
            roster_owner: roster_owner.cloned(),
            no_roster_owner: revision.roster_owner.is_none(),
            last_owner: revision.other_last_owner().cloned(),
        })
    }
}

impl PayloadLine {
    fn of(payload: &Payload) -> Self {
        Self { xml: payload.xml().into(), namespace: payload.namespace().into() }
    }

    fn into_payload(self) -> Payload {
        Payload::new(self.xml, self.namespace)
    }
}

impl ItemLine {
    pub(super) fn of(item: &Item) -> Self {
        Self {
            id: item.id.to_string(),
            sequence: item.event_id.sequence.0,
            index: item.index,
            created: (item.created != item.position())
                .then_some((item.created.sequence.0, item.created.index)),
            publisher: item.publisher.clone(),
            published: item.published.0,
            payload: item.payload.as_ref().map(PayloadLine::of),
        }
    }

    pub(super) fn into_item(self, epoch: Epoch) -> Result<Item, String> {
        let (sequence, index) = self.created.unwrap_or((self.sequence, self.index));
        Ok(Item {
            id: item_id(&self.id)?,
            event_id: EventId { epoch, sequence: Sequence(self.sequence) },
            index: self.index,
            created: ItemPosition { sequence: Sequence(sequence), index },
            publisher: self.publisher,
            published: Timestamp(self.published),
            payload: self.payload.map(PayloadLine::into_payload),
        })
    }
}

impl LogEntryLine {
    pub(super) fn of(notification: &LogEntry) -> Self {
        let event = match &notification.event {
            Event::AffiliationChanged(affiliation) => {
                EventLineContent::Affiliated(affiliation.as_str().to_owned())
            }
            Event::Announced(text) => EventLineContent::Announced(text.clone()),
            Event::Configured(config) => {
                EventLineContent::Configured(config.as_deref().map(config_of))
            }
            Event::Deleted { redirect } => EventLineContent::Deleted { redirect: redirect.clone() },
            Event::Published(items) => {
                let item = |item: &EventItem| EventItemLine {
                    id: item.id.to_string(),
                    publisher: item.publisher.clone(),
                    payload: item.payload.as_ref().map(PayloadLine::of),
                };
                EventLineContent::Published(items.iter().map(item).collect())
            }
            Event::Purged => EventLineContent::Purged,
            Event::ApprovalRequested(jid) => EventLineContent::Requested(jid.clone()),
            Event::Subscription { jid, subid, state, expiry } => EventLineContent::Subscription {
                jid: jid.clone(),
                subid: subid.as_ref().map(SubId::to_string),
                state: state.as_str().to_owned(),
                expiry: expiry.map(|expiry| expiry.0),
            },
            Event::Retracted(ids) => {
                EventLineContent::Retracted(ids.iter().map(ToString::to_string).collect())
            }
        };
        let all = |recipients: &Recipients| Some(recipients.iter().cloned().collect());
        let (listed, entities, interested) = match &notification.audience {
            Audience::Explicit(entities) => (None, all(entities), None),
            Audience::Interested(resources) => (None, None, all(resources)),
            Audience::Listed(listed) => (all(listed), None, None),
            Audience::Subscribers => (None, None, None),
        };
        let listed_subids = match &notification.audience {
            Audience::Listed(listed) if listed.have_subids() => {
                let subids = |subids: &[SubId]| subids.iter().map(SubId::to_string).collect();
                Some(listed.iter_with_subids().map(|(_, of)| subids(of)).collect())
            }
            _ => None,
        };
        Self {
            sequence: notification.event_id.sequence.0,
            happened: notification.occurred_at.0,
            index: notification.index,
            event,
            to: None,
            listed,
            listed_subids,
            entities,
            interested,
            body: notification.variant.has_body,
            subids: notification.variant.subids.iter().map(SubId::to_string).collect(),
            shows: notification.variant.shows.map(subscribe_options::show_names),
            normal: notification.notification_type == NotificationType::Normal,
            reply_to: Vec::new(),
            last_item: notification.nonce.is_some(),
            nonce: notification.nonce,
            as_of: Some(notification.as_of),
        }
    }

    pub(super) fn into_notification(self, node: &Node) -> Result<LogEntry, String> {
        let event = match self.event {
            EventLineContent::Affiliated(name) => {
                Event::AffiliationChanged(Affiliation::parse(&name).ok_or(name)?)
            }
            EventLineContent::Announced(text) => Event::Announced(text),
            EventLineContent::Configured(config) => {
                Event::Configured(config.as_ref().map(config_from).transpose()?.map(Box::new))
            }
            EventLineContent::Deleted { redirect } => Event::Deleted { redirect },
            EventLineContent::Published(items) => {
                let item = |item: EventItemLine| {
                    Ok(EventItem {
                        id: item_id(&item.id)?,
                        publisher: item.publisher,
                        payload: item.payload.map(PayloadLine::into_payload),
                    })
                };
                Event::Published(items.into_iter().map(item).collect::<Result<_, String>>()?)
            }
            EventLineContent::Purged => Event::Purged,
            EventLineContent::Requested(jid) => Event::ApprovalRequested(jid),
            EventLineContent::Subscription { jid, subid, state, expiry } => Event::Subscription {
                jid,
                subid: subid.as_deref().map(SubId::new),
                state: SubscriptionState::parse(&state).ok_or(state)?,
                expiry: expiry.map(Timestamp),
            },
            EventLineContent::Retracted(ids) => {
                Event::Retracted(ids.iter().map(|id| item_id(id)).collect::<Result<_, _>>()?)
            }
        };
        // In layout 9 the sequence of an event determined its audience, and a list was for all listed JIDs that were
        // still subscribed.
        let before =
            if self.listed.is_some() || self.to.is_some() { u64::MAX } else { self.sequence };
        Ok(LogEntry {
            node: node.id.clone(),
            event_id: EventId { epoch: node.epoch, sequence: Sequence(self.sequence) },
            index: self.index,
            event,
            audience: match (
                self.listed.or_else(|| self.to.map(|jid| vec![jid])),
                self.entities,
                self.interested,
            ) {
                (Some(listed), ..) => {
                    let mut all = self.listed_subids.unwrap_or_default().into_iter();
                    let listed = listed.into_iter().map(|jid| {
                        let subids = all.next().unwrap_or_default();
                        (jid, subids.iter().map(|subid| SubId::new(subid)).collect())
                    });
                    Audience::Listed(Recipients::with_subids(listed.collect()))
                }
                (None, Some(entities), _) => Audience::Explicit(entities.into_iter().collect()),
                (None, None, Some(resources)) => {
                    Audience::Interested(resources.into_iter().collect())
                }
                (None, None, None) => Audience::Subscribers,
            },
            variant: DeliveryVariant {
                has_body: self.body,
                subids: self.subids.iter().map(|subid| SubId::new(subid)).collect(),
                shows: match self.shows {
                    Some(names) => Some(subscribe_options::shows(&names).ok_or(names)?),
                    None => None,
                },
            },
            notification_type: if self.normal {
                NotificationType::Normal
            } else {
                NotificationType::Headline
            },
            occurred_at: Timestamp(self.happened),
            nonce: self.nonce.or_else(|| self.last_item.then_some(1)),
            as_of: self.as_of.unwrap_or(before),
        })
    }
}

fn item_id(id: &str) -> Result<ItemId, String> {
    ItemId::parse(id).map_err(|refusal| refusal.to_string())
}
