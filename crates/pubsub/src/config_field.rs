//! Fields of a node's configuration and the limits of their values.

use jid::Jid;

use crate::{
    AccessModel, Error, ItemExpire, ItemReply, LimitUnit, Limits, MaxItems, NotificationType,
    PublishModel, PublishNodeFull, SendLastPublishedItem,
};

/// Parsed field of a configuration form. Each variant is the field of [`NodeConfig`](crate::NodeConfig) of the same
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ConfigField {
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

/// Maximum bytes of a title.
const MAX_TITLE_BYTES: usize = 200;
/// Maximum bytes of a description.
const MAX_DESCRIPTION_BYTES: usize = 512;
/// Maximum bytes of a language tag.
const MAX_LANGUAGE_BYTES: usize = 100;
/// Maximum bytes of the URL of a transformation.
const MAX_XSLT_BYTES: usize = 1024;
/// Maximum number of roster groups.
const MAX_GROUPS: usize = 10;
/// Maximum bytes of the name of a roster group.
pub(super) const MAX_GROUP_BYTES: usize = 100;
/// Maximum number of contacts.
const MAX_CONTACTS: usize = 10;
/// Maximum bytes of `pubsub#type`.
const MAX_TYPE_BYTES: usize = 200;

impl ConfigField {
    /// Returns the name of the field in the form `pubsub#node_config`.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::AccessModel(_) => "pubsub#access_model",
            Self::BodyXslt(_) => "pubsub#body_xslt",
            Self::Contact(_) => "pubsub#contact",
            Self::DataformXslt(_) => "pubsub#dataform_xslt",
            Self::DeliverNotifications(_) => "pubsub#deliver_notifications",
            Self::DeliverPayloads(_) => "pubsub#deliver_payloads",
            Self::Description(_) => "pubsub#description",
            Self::ItemExpire(_) => "pubsub#item_expire",
            Self::ItemReply(_) => "pubsub#itemreply",
            Self::Language(_) => "pubsub#language",
            Self::MaxItems(_) => "pubsub#max_items",
            Self::MaxPayloadSize(_) => "pubsub#max_payload_size",
            Self::NotificationType(_) => "pubsub#notification_type",
            Self::NotifyConfig(_) => "pubsub#notify_config",
            Self::NotifyDelete(_) => "pubsub#notify_delete",
            Self::NotifyRetract(_) => "pubsub#notify_retract",
            Self::NotifySub(_) => "pubsub#notify_sub",
            Self::PersistItems(_) => "pubsub#persist_items",
            Self::PresenceBasedDelivery(_) => "pubsub#presence_based_delivery",
            Self::PublishModel(_) => "pubsub#publish_model",
            Self::PublishNodeFull(_) => "pubsub#publish_node_full",
            Self::PurgeOffline(_) => "pubsub#purge_offline",
            Self::RosterGroupsAllowed(_) => "pubsub#roster_groups_allowed",
            Self::SendLastPublishedItem(_) => "pubsub#send_last_published_item",
            Self::Subscribe(_) => "pubsub#subscribe",
            Self::Tempsub(_) => "pubsub#tempsub",
            Self::Title(_) => "pubsub#title",
            Self::Type(_) => "pubsub#type",
        }
    }

    /// Returns the field; a number above its limit is lowered to the limit.
    pub(super) fn within(self, limits: &Limits) -> Self {
        match self {
            Self::MaxItems(MaxItems::Number(v)) => {
                Self::MaxItems(MaxItems::Number(v.min(limits.max_items)))
            }
            Self::MaxPayloadSize(v) => Self::MaxPayloadSize(v.min(limits.max_payload_bytes)),
            other => other,
        }
    }

    /// Checks that the value is within its limits.
    ///
    /// # Errors
    /// [`Error::BadSetting`] with the field and its limit.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), Error> {
        let at_most = |value: usize, max: usize, unit| {
            let field = self.field();
            if value > max { Err(Error::BadSetting { field, max, unit }) } else { Ok(()) }
        };
        let check_text = |text: &str, max| at_most(text.len(), max, LimitUnit::Bytes);
        match self {
            Self::Title(v) => check_text(v, MAX_TITLE_BYTES),
            Self::Description(v) => check_text(v, MAX_DESCRIPTION_BYTES),
            Self::Type(v) => check_text(v, MAX_TYPE_BYTES),
            Self::Language(v) => check_text(v, MAX_LANGUAGE_BYTES),
            Self::BodyXslt(v) | Self::DataformXslt(v) => check_text(v, MAX_XSLT_BYTES),
            Self::RosterGroupsAllowed(v) => {
                v.iter().try_for_each(|group| check_text(group, MAX_GROUP_BYTES))?;
                at_most(v.len(), MAX_GROUPS, LimitUnit::Groups)
            }
            Self::Contact(v) => at_most(v.len(), MAX_CONTACTS, LimitUnit::Addresses),
            Self::MaxPayloadSize(v) => {
                at_most(*v as usize, limits.max_payload_bytes as usize, LimitUnit::Bytes)
            }
            Self::MaxItems(MaxItems::Number(v)) => {
                at_most(*v as usize, limits.max_items as usize, LimitUnit::Items)
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
