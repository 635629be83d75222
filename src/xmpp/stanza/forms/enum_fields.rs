//! Values of the configuration fields that are choices, with the labels of the registry (§16.4.4).

use gjallar_pubsub::{
    AccessModel, ItemExpire, ItemReply, NotificationType, PublishModel, PublishNodeFull,
    SendLastPublishedItem,
};

pub(super) const ACCESS_MODELS: &[(&str, &str)] = &[
    ("authorize", "Subscription requests must be approved and only subscribers may retrieve items"),
    ("open", "Anyone may subscribe and retrieve items"),
    (
        "presence",
        "Anyone with a presence subscription of both or from may subscribe and retrieve items",
    ),
    ("roster", "Anyone in the specified roster group(s) may subscribe and retrieve items"),
    ("whitelist", "Only those on a whitelist may subscribe and retrieve items"),
];
pub(super) const ITEM_REPLIES: &[(&str, &str)] = &[
    ("none", "Specify no replyto"),
    ("owner", "Statically specify a replyto of the node owner(s)"),
    ("publisher", "Dynamically specify a replyto of the item publisher"),
];
pub(super) const NOTIFICATION_TYPES: &[(&str, &str)] =
    &[("headline", "Messages of type headline"), ("normal", "Messages of type normal")];
pub(super) const PUBLISH_MODELS: &[(&str, &str)] = &[
    ("open", "Anyone may publish"),
    ("publishers", "Only publishers may publish"),
    ("subscribers", "Subscribers may publish"),
];
pub(super) const NODE_FULL: &[(&str, &str)] = &[
    ("discard-oldest", "Discard the oldest item alongside publishing the new item"),
    ("reject", "Reject publication of the new item"),
    ("retract-oldest", "Retract the oldest item alongside publishing the new item"),
];
pub(super) const SEND_LAST: &[(&str, &str)] = &[
    ("never", "Never"),
    ("on_sub", "When a new subscription is processed"),
    (
        "on_sub_and_presence",
        "When a new subscription is processed and whenever a subscriber comes online",
    ),
];

/// Returns the value of `pubsub#item_expire`: a number of seconds or `max`.
pub(super) fn item_expire(expire: ItemExpire) -> String {
    match expire {
        ItemExpire::Max => "max".to_owned(),
        ItemExpire::Seconds(seconds) => seconds.to_string(),
    }
}

/// Returns the name of an access model on the wire.
#[must_use]
pub fn access_model(model: AccessModel) -> &'static str {
    match model {
        AccessModel::Authorize => "authorize",
        AccessModel::Open => "open",
        AccessModel::Presence => "presence",
        AccessModel::Roster => "roster",
        AccessModel::Whitelist => "whitelist",
    }
}

/// Returns the name of a publish model on the wire.
#[must_use]
pub fn publish_model(model: PublishModel) -> &'static str {
    match model {
        PublishModel::Open => "open",
        PublishModel::Publishers => "publishers",
        PublishModel::Subscribers => "subscribers",
    }
}

pub(super) fn node_full(then: PublishNodeFull) -> &'static str {
    match then {
        PublishNodeFull::DiscardOldest => "discard-oldest",
        PublishNodeFull::Reject => "reject",
        PublishNodeFull::RetractOldest => "retract-oldest",
    }
}

pub(super) fn notification_type(kind: NotificationType) -> &'static str {
    match kind {
        NotificationType::Headline => "headline",
        NotificationType::Normal => "normal",
    }
}

pub(super) fn send_last(when: SendLastPublishedItem) -> &'static str {
    match when {
        SendLastPublishedItem::Never => "never",
        SendLastPublishedItem::OnSub => "on_sub",
        SendLastPublishedItem::OnSubAndPresence => "on_sub_and_presence",
    }
}

pub(super) fn item_reply(to: ItemReply) -> &'static str {
    match to {
        ItemReply::None => "none",
        ItemReply::Owner => "owner",
        ItemReply::Publisher => "publisher",
    }
}
