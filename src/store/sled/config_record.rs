//! Stored record of a node configuration.

use jid::Jid;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use gjallar_pubsub::{
    AccessModel, ItemExpire, ItemReply, MaxItems, NodeConfig, NotificationType, PublishModel,
    PublishNodeFull, SendLastPublishedItem,
};

use super::record::damaged;

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
    /// Value of `pubsub#item_expire` in seconds; `None` for the value `max`.
    item_expire: Option<u32>,
    itemreply: ItemReplyRecord,
    language: String,
    /// Value of `pubsub#max_items`; `None` for the value `max`.
    max_items: Option<u32>,
    max_payload_size: u32,
    normal_messages: bool,
    notify_config: bool,
    notify_delete: bool,
    notify_retract: bool,
    notify_sub: bool,
    persist_items: bool,
    presence_based_delivery: bool,
    publish_model: PublishModelRecord,
    publish_node_full: NodeFullRecord,
    purge_offline: bool,
    roster_groups_allowed: Vec<String>,
    send_last: SendLastRecord,
    subscribe: bool,
    tempsub: bool,
    title: String,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
enum AccessModelRecord {
    Authorize,
    Open,
    Presence,
    Roster,
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

#[derive(Serialize, Deserialize)]
enum NodeFullRecord {
    DiscardOldest,
    Reject,
    RetractOldest,
}

#[derive(Serialize, Deserialize)]
enum SendLastRecord {
    Never,
    OnSub,
    OnSubAndPresence,
}

impl ConfigRecord {
    pub(super) fn of(config: &NodeConfig) -> Self {
        Self {
            access_model: match config.access_model {
                AccessModel::Authorize => AccessModelRecord::Authorize,
                AccessModel::Open => AccessModelRecord::Open,
                AccessModel::Presence => AccessModelRecord::Presence,
                AccessModel::Roster => AccessModelRecord::Roster,
                AccessModel::Whitelist => AccessModelRecord::Whitelist,
            },
            body_xslt: config.body_xslt.clone(),
            contact: config.contact.iter().map(|jid| jid.as_str().into()).collect(),
            dataform_xslt: config.dataform_xslt.clone(),
            deliver_notifications: config.deliver_notifications,
            deliver_payloads: config.deliver_payloads,
            description: config.description.clone(),
            item_expire: match config.item_expire {
                ItemExpire::Max => None,
                ItemExpire::Seconds(seconds) => Some(seconds),
            },
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
            notify_sub: config.notify_sub,
            persist_items: config.persist_items,
            presence_based_delivery: config.presence_based_delivery,
            publish_node_full: match config.publish_node_full {
                PublishNodeFull::DiscardOldest => NodeFullRecord::DiscardOldest,
                PublishNodeFull::Reject => NodeFullRecord::Reject,
                PublishNodeFull::RetractOldest => NodeFullRecord::RetractOldest,
            },
            purge_offline: config.purge_offline,
            roster_groups_allowed: config.roster_groups_allowed.clone(),
            publish_model: match config.publish_model {
                PublishModel::Open => PublishModelRecord::Open,
                PublishModel::Publishers => PublishModelRecord::Publishers,
                PublishModel::Subscribers => PublishModelRecord::Subscribers,
            },
            send_last: match config.send_last_published_item {
                SendLastPublishedItem::Never => SendLastRecord::Never,
                SendLastPublishedItem::OnSub => SendLastRecord::OnSub,
                SendLastPublishedItem::OnSubAndPresence => SendLastRecord::OnSubAndPresence,
            },
            subscribe: config.subscribe,
            tempsub: config.tempsub,
            title: config.title.clone(),
            r#type: config.r#type.clone(),
        }
    }

    /// Returns `true` if the configuration needs timers or the presence of entities.
    pub(super) fn needs_timers(&self) -> bool {
        self.item_expire.is_some()
            || self.presence_based_delivery
            || self.purge_offline
            || self.tempsub
            || matches!(self.access_model, AccessModelRecord::Presence | AccessModelRecord::Roster)
    }

    pub(super) fn to_config(&self, key: &[u8]) -> Result<NodeConfig, StoreError> {
        let jid = |jid: &String| Jid::new(jid).map_err(|_| damaged(key));
        Ok(NodeConfig {
            access_model: match self.access_model {
                AccessModelRecord::Authorize => AccessModel::Authorize,
                AccessModelRecord::Open => AccessModel::Open,
                AccessModelRecord::Presence => AccessModel::Presence,
                AccessModelRecord::Roster => AccessModel::Roster,
                AccessModelRecord::Whitelist => AccessModel::Whitelist,
            },
            body_xslt: self.body_xslt.clone(),
            contact: self.contact.iter().map(jid).collect::<Result<_, _>>()?,
            dataform_xslt: self.dataform_xslt.clone(),
            deliver_notifications: self.deliver_notifications,
            deliver_payloads: self.deliver_payloads,
            description: self.description.clone(),
            item_expire: self.item_expire.map_or(ItemExpire::Max, ItemExpire::Seconds),
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
            notify_sub: self.notify_sub,
            persist_items: self.persist_items,
            presence_based_delivery: self.presence_based_delivery,
            publish_node_full: match self.publish_node_full {
                NodeFullRecord::DiscardOldest => PublishNodeFull::DiscardOldest,
                NodeFullRecord::Reject => PublishNodeFull::Reject,
                NodeFullRecord::RetractOldest => PublishNodeFull::RetractOldest,
            },
            purge_offline: self.purge_offline,
            roster_groups_allowed: self.roster_groups_allowed.clone(),
            publish_model: match self.publish_model {
                PublishModelRecord::Open => PublishModel::Open,
                PublishModelRecord::Publishers => PublishModel::Publishers,
                PublishModelRecord::Subscribers => PublishModel::Subscribers,
            },
            send_last_published_item: match self.send_last {
                SendLastRecord::Never => SendLastPublishedItem::Never,
                SendLastRecord::OnSub => SendLastPublishedItem::OnSub,
                SendLastRecord::OnSubAndPresence => SendLastPublishedItem::OnSubAndPresence,
            },
            subscribe: self.subscribe,
            tempsub: self.tempsub,
            title: self.title.clone(),
            r#type: self.r#type.clone(),
        })
    }
}
