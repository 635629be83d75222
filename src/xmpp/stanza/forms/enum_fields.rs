//! The values of the fields of a node's configuration that are choices: their names, and what they mean.

use gjallar_pubsub::{
    AccessModel, ItemExpire, ItemReply, NotificationType, PublishModel, PublishNodeFull,
    SendLastPublishedItem,
};

pub(super) const ACCESS_MODELS: &[(&str, &str)] = &[
    ("authorize", "Those whom an owner approves may subscribe and retrieve items"),
    ("open", "Anyone may subscribe and retrieve items"),
    ("presence", "Those who have the presence of an owner may subscribe and retrieve items"),
    ("roster", "Those in some groups of an owner's roster may subscribe and retrieve items"),
    ("whitelist", "Only those on a list may subscribe and retrieve items"),
];
pub(super) const ITEM_REPLIES: &[(&str, &str)] = &[
    ("none", "No publisher"),
    ("owner", "The owner of the node"),
    ("publisher", "The publisher of the item"),
];
pub(super) const NOTIFICATION_TYPES: &[(&str, &str)] =
    &[("headline", "Not kept for those who are offline"), ("normal", "Perhaps kept")];
pub(super) const PUBLISH_MODELS: &[(&str, &str)] = &[
    ("open", "Anyone may publish"),
    ("publishers", "Only publishers may publish"),
    ("subscribers", "Publishers and subscribers may publish"),
];
pub(super) const NODE_FULL: &[(&str, &str)] = &[
    ("discard-oldest", "The oldest item goes"),
    ("reject", "It is refused"),
    ("retract-oldest", "The oldest item is retracted, and subscribers are told"),
];
pub(super) const SEND_LAST: &[(&str, &str)] = &[
    ("never", "Never"),
    ("on_sub", "When a subscription is made"),
    ("on_sub_and_presence", "Then, and when a subscriber becomes available"),
];

/// How long items are kept, as a number or `max`.
pub(super) fn item_expire(expire: ItemExpire) -> String {
    match expire {
        ItemExpire::Max => "max".to_owned(),
        ItemExpire::Seconds(seconds) => seconds.to_string(),
    }
}

/// The name of an access model on the wire.
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

/// The name of a publish model on the wire.
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
