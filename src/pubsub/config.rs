//! How a node behaves (§16.4.4), and one setting of it.

use std::hash::{DefaultHasher, Hash, Hasher};

use jid::Jid;

use super::{Change, Limits, Refusal};

/// Who may subscribe and retrieve items (§4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessModel {
    /// Anyone whom an owner approves, and those on the list.
    Authorize,
    /// Anyone who is no outcast.
    Open,
    /// Owners, publishers and members.
    Whitelist,
}

/// Who may publish (§16.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishModel {
    /// Anyone who is no outcast.
    Open,
    /// Those with the affiliation owner, publisher or publish-only.
    Publishers,
    /// Those, and subscribers.
    Subscribers,
}

/// How many items a node keeps (§12.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaxItems {
    /// As many as the service allows.
    Max,
    /// This many.
    Number(u32),
}

impl MaxItems {
    /// The number of items that it stands for in this service.
    #[must_use]
    pub fn within(self, limits: &Limits) -> u32 {
        match self {
            Self::Max => limits.max_items,
            Self::Number(n) => n.min(limits.max_items),
        }
    }
}

/// How long a node keeps an item (§16.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemExpire {
    /// Until something else removes it.
    Max,
    /// So many seconds.
    Seconds(u32),
}

impl ItemExpire {
    /// The milliseconds after which an item goes, if it does by itself.
    #[must_use]
    pub fn millis(self) -> Option<u64> {
        match self {
            Self::Max => None,
            Self::Seconds(seconds) => Some(1000 * u64::from(seconds)),
        }
    }
}

/// The type of the messages that carry events (§16.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotificationType {
    /// Not kept for those who are offline.
    Headline,
    /// Kept by many servers for those who are offline.
    Normal,
}

/// What becomes of an item that is one too many (§7.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishNodeFull {
    /// The oldest goes, and nobody is told.
    DiscardOldest,
    /// It is refused.
    Reject,
    /// The oldest is retracted, and subscribers are told as of any retraction.
    RetractOldest,
}

/// When a subscriber is sent the last item (§6.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendLastPublishedItem {
    /// Never.
    Never,
    /// When it subscribes.
    OnSub,
    /// Then, and whenever it becomes available.
    OnSubAndPresence,
}

impl SendLastPublishedItem {
    /// Whether it is sent to whoever subscribes.
    #[must_use]
    pub fn is_on_sub(self) -> bool {
        self != Self::Never
    }
}

/// Whom a reader should answer (§12.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemReply {
    /// Nobody in particular.
    None,
    /// The owners of the node.
    Owner,
    /// The publisher of the item.
    Publisher,
}

/// How a node behaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)] // the form has these yes-or-no fields
pub struct NodeConfig {
    /// Who may subscribe and retrieve.
    pub access_model: AccessModel,
    /// Where a transformation of payloads to message bodies is (§12.8), for those who run it.
    pub body_xslt: String,
    /// Whom to contact with questions.
    pub contact: Vec<Jid>,
    /// Where a transformation of payloads to data forms is, for those who run it.
    pub dataform_xslt: String,
    /// Whether events are sent at all.
    pub deliver_notifications: bool,
    /// Whether events carry the payloads.
    pub deliver_payloads: bool,
    /// What the node is about, for people.
    pub description: String,
    /// How long items are kept.
    pub item_expire: ItemExpire,
    /// Whom readers should answer.
    pub itemreply: ItemReply,
    /// The language of what is published, as a tag (RFC 5646); empty if that is not said.
    pub language: String,
    /// How many items are kept.
    pub max_items: MaxItems,
    /// The largest payload, in bytes; never above the service's limit.
    pub max_payload_size: u32,
    /// The type of event messages.
    pub notification_type: NotificationType,
    /// Whether a change of the configuration is announced.
    pub notify_config: bool,
    /// Whether the node's deletion is announced.
    pub notify_delete: bool,
    /// Whether retracted items and a purge are announced.
    pub notify_retract: bool,
    /// Whether owners are told who is subscribed and who is not any more.
    pub notify_sub: bool,
    /// Whether items are kept.
    pub persist_items: bool,
    /// Whether events come only to those who are available (§12.3).
    pub presence_based_delivery: bool,
    /// Who may publish.
    pub publish_model: PublishModel,
    /// What becomes of an item that is one too many.
    pub publish_node_full: PublishNodeFull,
    /// Whether all items go when the publisher of the newest is not available any more.
    pub purge_offline: bool,
    /// When the last item is sent.
    pub send_last_published_item: SendLastPublishedItem,
    /// Whether anybody may subscribe who is not subscribed yet.
    pub subscribe: bool,
    /// Whether subscriptions end when their subscriber is not available any more (§12.5).
    pub tempsub: bool,
    /// A name for people.
    pub title: String,
    /// The namespace of the payloads; empty for any.
    pub r#type: String,
}

impl NodeConfig {
    /// The configuration that a node has if its creator says nothing else.
    #[must_use]
    pub fn initial(limits: &Limits) -> Self {
        Self {
            access_model: AccessModel::Open,
            body_xslt: String::new(),
            contact: Vec::new(),
            dataform_xslt: String::new(),
            deliver_notifications: true,
            deliver_payloads: true,
            description: String::new(),
            item_expire: ItemExpire::Max,
            itemreply: ItemReply::None,
            language: String::new(),
            max_items: MaxItems::Max,
            max_payload_size: limits.max_payload_bytes,
            notification_type: NotificationType::Headline,
            notify_config: false,
            notify_delete: true,
            notify_retract: true,
            notify_sub: false,
            persist_items: true,
            presence_based_delivery: false,
            publish_model: PublishModel::Publishers,
            // SPEC: the XEP's default is to retract. What makes room for itself is then told twice, and clients
            // that keep what they have seen lose it; so that has to be asked for.
            publish_node_full: PublishNodeFull::DiscardOldest,
            purge_offline: false,
            send_last_published_item: SendLastPublishedItem::OnSub,
            subscribe: true,
            tempsub: false,
            title: String::new(),
            r#type: String::new(),
        }
    }

    /// The same for the same configuration; of two others hardly ever.
    #[must_use]
    pub fn revision(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a node depends on the presence of its subscribers, or of its publishers.
    pub(super) fn looks_at_presence(&self) -> bool {
        self.presence_based_delivery
            || self.purge_offline
            || self.tempsub
            || self.send_last_published_item == SendLastPublishedItem::OnSubAndPresence
    }

    /// What becomes of a node's items that are too many or too large together.
    pub(super) fn retention(&self, limits: &Limits) -> Change {
        let keep = if self.persist_items { self.max_items.within(limits) } else { 0 };
        Change::Trimmed { keep, max_bytes: limits.max_node_bytes }
    }

    /// This configuration with some settings changed.
    ///
    /// # Errors
    /// [`Refusal::BadSetting`] for a value past a limit; nothing of the request holds then.
    pub fn with(mut self, settings: &[Setting], limits: &Limits) -> Result<Self, Refusal> {
        for setting in settings {
            setting.check(limits)?;
            match setting.clone() {
                Setting::AccessModel(v) => self.access_model = v,
                Setting::BodyXslt(v) => self.body_xslt = v,
                Setting::Contact(v) => self.contact = v,
                Setting::DataformXslt(v) => self.dataform_xslt = v,
                Setting::DeliverNotifications(v) => self.deliver_notifications = v,
                Setting::DeliverPayloads(v) => self.deliver_payloads = v,
                Setting::Description(v) => self.description = v,
                Setting::ItemExpire(v) => self.item_expire = v,
                Setting::ItemReply(v) => self.itemreply = v,
                Setting::Language(v) => self.language = v,
                Setting::MaxItems(v) => self.max_items = v,
                Setting::MaxPayloadSize(v) => self.max_payload_size = v,
                Setting::NotificationType(v) => self.notification_type = v,
                Setting::NotifyConfig(v) => self.notify_config = v,
                Setting::NotifyDelete(v) => self.notify_delete = v,
                Setting::NotifyRetract(v) => self.notify_retract = v,
                Setting::NotifySub(v) => self.notify_sub = v,
                Setting::PersistItems(v) => self.persist_items = v,
                Setting::PresenceBasedDelivery(v) => self.presence_based_delivery = v,
                Setting::PublishNodeFull(v) => self.publish_node_full = v,
                Setting::PurgeOffline(v) => self.purge_offline = v,
                Setting::Tempsub(v) => self.tempsub = v,
                Setting::PublishModel(v) => self.publish_model = v,
                Setting::SendLastPublishedItem(v) => self.send_last_published_item = v,
                Setting::Subscribe(v) => self.subscribe = v,
                Setting::Title(v) => self.title = v,
                Setting::Type(v) => self.r#type = v,
            }
        }
        Ok(self)
    }
}

/// One field of a configuration form, understood. Each stands for the field of [`NodeConfig`] of the
/// same name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Setting {
    AccessModel(AccessModel),
    BodyXslt(String),
    Contact(Vec<Jid>),
    DataformXslt(String),
    DeliverNotifications(bool),
    DeliverPayloads(bool),
    Description(String),
    ItemExpire(ItemExpire),
    ItemReply(ItemReply),
    Language(String),
    MaxItems(MaxItems),
    MaxPayloadSize(u32),
    NotificationType(NotificationType),
    NotifyConfig(bool),
    NotifyDelete(bool),
    NotifyRetract(bool),
    NotifySub(bool),
    PersistItems(bool),
    PresenceBasedDelivery(bool),
    PublishModel(PublishModel),
    PublishNodeFull(PublishNodeFull),
    PurgeOffline(bool),
    SendLastPublishedItem(SendLastPublishedItem),
    Subscribe(bool),
    Tempsub(bool),
    Title(String),
    Type(String),
}

/// The longest title, in bytes.
const MAX_TITLE_BYTES: usize = 200;
/// The longest description, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 512;
/// The longest tag of a language, in bytes.
const MAX_LANGUAGE_BYTES: usize = 100;
/// The longest address of a transformation, in bytes.
const MAX_XSLT_BYTES: usize = 1024;
/// The most contacts.
const MAX_CONTACTS: usize = 10;
/// The longest `pubsub#type`, in bytes.
const MAX_TYPE_BYTES: usize = 200;

impl Setting {
    /// Whether the value is within its limits.
    fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let at_most = |field: &'static str, value: usize, max: usize| {
            if value > max { Err(Refusal::BadSetting { field, max }) } else { Ok(()) }
        };
        match self {
            Self::Title(v) => at_most("pubsub#title", v.len(), MAX_TITLE_BYTES),
            Self::Description(v) => at_most("pubsub#description", v.len(), MAX_DESCRIPTION_BYTES),
            Self::Type(v) => at_most("pubsub#type", v.len(), MAX_TYPE_BYTES),
            Self::Language(v) => at_most("pubsub#language", v.len(), MAX_LANGUAGE_BYTES),
            Self::BodyXslt(v) => at_most("pubsub#body_xslt", v.len(), MAX_XSLT_BYTES),
            Self::DataformXslt(v) => at_most("pubsub#dataform_xslt", v.len(), MAX_XSLT_BYTES),
            Self::Contact(v) => at_most("pubsub#contact", v.len(), MAX_CONTACTS),
            Self::MaxPayloadSize(v) => {
                at_most("pubsub#max_payload_size", *v as usize, limits.max_payload_bytes as usize)
            }
            Self::MaxItems(MaxItems::Number(v)) => {
                at_most("pubsub#max_items", *v as usize, limits.max_items as usize)
            }
            Self::AccessModel(_)
            | Self::DeliverNotifications(_)
            | Self::DeliverPayloads(_)
            | Self::ItemExpire(_)
            | Self::ItemReply(_)
            | Self::MaxItems(MaxItems::Max)
            | Self::NotificationType(_)
            | Self::NotifyConfig(_)
            | Self::NotifyDelete(_)
            | Self::NotifyRetract(_)
            | Self::NotifySub(_)
            | Self::PersistItems(_)
            | Self::PresenceBasedDelivery(_)
            | Self::PublishModel(_)
            | Self::PublishNodeFull(_)
            | Self::PurgeOffline(_)
            | Self::Tempsub(_)
            | Self::SendLastPublishedItem(_)
            | Self::Subscribe(_) => Ok(()),
        }
    }
}
