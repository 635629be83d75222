//! One setting of a node's configuration, and what it may be.

use jid::Jid;

use super::{
    AccessModel, ItemExpire, ItemReply, Limits, MaxItems, NotificationType, PublishModel,
    PublishNodeFull, Refusal, SendLastPublishedItem,
};

/// One field of a configuration form, understood. Each stands for the field of [`NodeConfig`](super::NodeConfig) of the
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
    RosterGroupsAllowed(Vec<String>),
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
/// The most groups of a roster, and the longest name of one, in bytes.
const MAX_GROUPS: usize = 10;
const MAX_GROUP_BYTES: usize = 100;
/// The most contacts.
const MAX_CONTACTS: usize = 10;
/// The longest `pubsub#type`, in bytes.
const MAX_TYPE_BYTES: usize = 200;

impl Setting {
    /// Whether the value is within its limits.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), Refusal> {
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
            Self::RosterGroupsAllowed(v) => {
                let longest = v.iter().map(String::len).max().unwrap_or_default();
                at_most("pubsub#roster_groups_allowed", longest, MAX_GROUP_BYTES)?;
                at_most("pubsub#roster_groups_allowed", v.len(), MAX_GROUPS)
            }
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
