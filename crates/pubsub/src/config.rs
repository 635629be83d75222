//! Node configuration (§16.4.4).

use std::collections::BTreeSet;

use jid::{BareJid, Jid};

use crate::{Change, ConfigField, ConfigRevision, Context, Error, LimitUnit, Limits, NodeId};

/// Access model: the entities that may subscribe and retrieve items (§4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessModel {
    /// Entities that an owner approves; owners, publishers and members need no approval.
    Authorize,
    /// All entities except outcasts.
    Open,
    /// Contacts in the owner's roster that receive the presence of the owner; also owners, publishers and members.
    Presence,
    /// Contacts in certain groups of the owner's roster; also owners, publishers and members.
    Roster,
    /// Owners, publishers and members.
    Whitelist,
}

impl AccessModel {
    /// Returns `true` if the access model depends on rosters.
    #[must_use]
    pub fn reads_rosters(self) -> bool {
        matches!(self, Self::Presence | Self::Roster)
    }
}

/// Publish model: the entities that may publish (§16.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishModel {
    /// All entities except outcasts.
    Open,
    /// Entities with the affiliation owner, publisher or publish-only.
    Publishers,
    /// Entities with the affiliation owner, publisher or publish-only, and subscribers.
    Subscribers,
}

/// Maximum number of items that a node keeps (§12.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaxItems {
    /// As many as the service allows.
    Max,
    /// This number of items.
    Number(u32),
}

impl MaxItems {
    /// Returns the effective number of items: at most [`Limits::max_items`].
    #[must_use]
    pub fn within(self, limits: &Limits) -> u32 {
        match self {
            Self::Max => limits.max_items,
            Self::Number(n) => n.min(limits.max_items),
        }
    }
}

/// Time for which a node keeps an item (§16.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemExpire {
    /// No expiry.
    Max,
    /// This number of seconds.
    Seconds(u32),
}

impl ItemExpire {
    /// Returns the lifetime of an item in milliseconds; `None` if items do not expire.
    #[must_use]
    pub fn millis(self) -> Option<u64> {
        match self {
            Self::Max => None,
            Self::Seconds(seconds) => Some(1000 * u64::from(seconds)),
        }
    }
}

/// Type of the messages that carry notifications (§16.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotificationType {
    /// Servers do not store headlines for users who are offline.
    Headline,
    /// Many servers store normal messages for users who are offline.
    Normal,
}

/// Handling of a publish request at a node that has its maximum number of items (§7.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishNodeFull {
    /// Removes the oldest item without notifying subscribers.
    DiscardOldest,
    /// Refuses the new item.
    Reject,
    /// Retracts the oldest item and notifies subscribers of the retraction.
    RetractOldest,
}

/// Occasions on which a subscriber is sent the last item (§6.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendLastPublishedItem {
    /// Never.
    Never,
    /// When the subscriber subscribes.
    OnSub,
    /// When the subscriber subscribes, and whenever it becomes available.
    OnSubAndPresence,
}

impl SendLastPublishedItem {
    /// Returns `true` if new subscribers are sent the last item.
    #[must_use]
    pub fn is_on_sub(self) -> bool {
        self != Self::Never
    }
}

/// JID that the items of a node show as their publisher (§12.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemReply {
    /// No JID.
    None,
    /// The [responsible owner](crate::Node::responsible_owner) of the node.
    Owner,
    /// The publisher of the item.
    Publisher,
}

fn is_same_set<T: Ord>(some: &[T], others: &[T]) -> bool {
    some.iter().collect::<BTreeSet<_>>() == others.iter().collect()
}

/// Replaces the values of a field that is a set. The same values in another order are no change.
fn replace_set<T: Ord>(values: &mut Vec<T>, submitted: Vec<T>) {
    if !is_same_set(values, &submitted) {
        *values = submitted;
    }
}

/// Maximum total bytes of the texts that the store keeps in the row of a node: all texts of its configuration, its
/// name, the JID of its creator and the JIDs in its [configuration revision](ConfigRevision).
const MAX_BYTES: usize = 3800;

/// Configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // the form has these yes-or-no fields
pub struct NodeConfig {
    /// Entities that may subscribe and retrieve items.
    pub access_model: AccessModel,
    /// URL of a transformation of payloads to message bodies (§12.8), for clients that apply it.
    pub body_xslt: String,
    /// JIDs to contact with questions.
    pub contact: Vec<Jid>,
    /// URL of a transformation of payloads to data forms, for clients that apply it.
    pub dataform_xslt: String,
    /// `true` if notifications are sent at all.
    pub deliver_notifications: bool,
    /// `true` if notifications include payloads.
    pub deliver_payloads: bool,
    /// Human-readable description of the node.
    pub description: String,
    /// Time for which items are kept.
    pub item_expire: ItemExpire,
    /// JID that items show as their publisher.
    pub itemreply: ItemReply,
    /// Language tag (RFC 5646) of the published data; empty if unspecified.
    pub language: String,
    /// Maximum number of items that are kept.
    pub max_items: MaxItems,
    /// Maximum size of a payload in bytes; lowered to the limit of the service if it is larger.
    pub max_payload_size: u32,
    /// Type of notification messages.
    pub notification_type: NotificationType,
    /// `true` if subscribers are notified of a changed configuration.
    pub notify_config: bool,
    /// `true` if subscribers are notified of the node's deletion.
    pub notify_delete: bool,
    /// `true` if subscribers are notified of retracted items and of a purge.
    pub notify_retract: bool,
    /// `true` if owners are notified of new and ended subscriptions.
    pub notify_sub: bool,
    /// `true` if items are kept.
    pub persist_items: bool,
    /// `true` if only available subscribers are notified (§12.3).
    pub presence_based_delivery: bool,
    /// Entities that may publish.
    pub publish_model: PublishModel,
    /// Handling of a publish request at a node that has its maximum number of items.
    pub publish_node_full: PublishNodeFull,
    /// `true` if items are removed when their publisher becomes unavailable; see
    /// [`on_unavailable`](crate::op::presence_change::on_unavailable).
    pub purge_offline: bool,
    /// Roster groups that the access model [`Roster`](AccessModel::Roster) admits.
    pub roster_groups_allowed: Vec<String>,
    /// Occasions on which a subscriber is sent the last item.
    pub send_last_published_item: SendLastPublishedItem,
    /// `true` if new subscriptions are accepted.
    pub subscribe: bool,
    /// `true` if a subscription ends when its subscriber becomes unavailable (§12.5).
    pub tempsub: bool,
    /// Human-readable title of the node.
    pub title: String,
    /// Semantic type of the data, usually the namespace of the payloads (§16.4.4); informative only.
    pub r#type: String,
}

impl NodeConfig {
    /// Returns the default configuration under these limits.
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
            // SPEC-DEVIATION: the default of `publish_node_full` in the XEP is `retract-oldest`. A publish request that
            // makes room would then notify subscribers twice, and clients that store the items they received would lose
            // the oldest one; so owners have to choose it.
            publish_node_full: PublishNodeFull::DiscardOldest,
            purge_offline: false,
            roster_groups_allowed: Vec::new(),
            // §4.3. SPEC: the default of `send_last_published_item` does not make the service ask for presence;
            // subscribers that share their presence receive the last item.
            send_last_published_item: SendLastPublishedItem::OnSubAndPresence,
            subscribe: true,
            tempsub: false,
            title: String::new(),
            r#type: String::new(),
        }
    }

    /// Returns `true` if all subscriptions of the node depend on the presence of their subscribers.
    pub(super) fn depends_on_subscriber_presence(&self) -> bool {
        self.presence_based_delivery || self.tempsub
    }

    /// Checks that the service can read rosters if the access model needs them.
    ///
    /// # Errors
    /// [`Error::UnsupportedAccessModel`] if the access model needs rosters and the service cannot read them.
    pub(super) fn check_model(&self, cx: &Context<'_>) -> Result<(), Error> {
        match self.access_model.reads_rosters() && !cx.reads_rosters {
            true => Err(Error::UnsupportedAccessModel),
            false => Ok(()),
        }
    }

    /// Checks that the texts of a node fit into one row of the store: the name, the JID of the creator, the JIDs in the
    /// configuration revision, and all texts of the configuration.
    ///
    /// # Errors
    /// [`Error::BadSetting`] if the total of all these texts is more than `MAX_BYTES` bytes.
    pub(super) fn check_size(
        &self,
        node: &NodeId,
        creator: &BareJid,
        revision: &ConfigRevision,
    ) -> Result<(), Error> {
        let jids = self.contact.iter().map(|jid| jid.as_str().len());
        let groups = self.roster_groups_allowed.iter().map(String::len);
        let texts = [&self.title, &self.description, &self.r#type, &self.language];
        let texts = texts.into_iter().chain([&self.body_xslt, &self.dataform_xslt]);
        let all = texts.map(String::len).chain(jids).chain(groups).map(|len| len + 2);
        // Rows omit the entities of the revision that are the creator.
        let others = [Some(&revision.changed_by), revision.roster_owner.as_ref()];
        let others = others.into_iter().flatten().filter(|other| *other != creator);
        let others = others.chain(revision.other_last_owner());
        let others: usize = others.map(|other| other.as_str().len()).sum();
        let names = node.as_str().len() + creator.as_str().len() + others;
        match all.sum::<usize>() + names > MAX_BYTES {
            true => Err(Error::BadSetting {
                field: "pubsub#node_config",
                max: MAX_BYTES,
                unit: LimitUnit::Bytes,
            }),
            false => Ok(()),
        }
    }

    /// Returns the effective configuration: numbers above these limits are lowered to them. The limits may have been
    /// lowered since the configuration was set.
    #[must_use]
    pub fn within(mut self, limits: &Limits) -> Self {
        if let MaxItems::Number(_) = self.max_items {
            self.max_items = MaxItems::Number(self.max_items.within(limits));
        }
        self.max_payload_size = self.max_payload_size.min(limits.max_payload_bytes);
        self
    }

    /// Returns the change that evicts the items past the number and size limits of the node. At a node that does not
    /// keep items, the change evicts all items.
    pub(super) fn eviction(&self, limits: &Limits) -> Change {
        let keep = if self.persist_items { self.max_items.within(limits) } else { 0 };
        Change::ItemsEvicted { keep, max_bytes: limits.max_node_bytes }
    }

    /// Returns the configuration with some fields changed.
    ///
    /// # Errors
    /// [`Error::BadSetting`] for a value past a limit; no field is changed then.
    pub fn with(mut self, settings: &[ConfigField], limits: &Limits) -> Result<Self, Error> {
        for setting in settings {
            setting.check(limits)?;
            self.set(setting.clone());
        }
        Ok(self)
    }

    /// Returns `true` if the configuration meets a publish option (§7.1.5) under these limits. The value `max` of
    /// `pubsub#max_items` means the maximum number of items of the service. An option with a number above a limit is
    /// never met. Fields with several values are compared as sets.
    pub(super) fn meets(&self, wanted: &ConfigField, limits: &Limits) -> bool {
        match wanted {
            ConfigField::Contact(wanted) => is_same_set(&self.contact, wanted),
            ConfigField::MaxItems(wanted) => {
                let wanted = match wanted {
                    MaxItems::Max => limits.max_items,
                    MaxItems::Number(number) => *number,
                };
                self.max_items.within(limits) == wanted
            }
            ConfigField::MaxPayloadSize(wanted) => {
                self.max_payload_size.min(limits.max_payload_bytes) == *wanted
            }
            ConfigField::RosterGroupsAllowed(wanted) => {
                is_same_set(&self.roster_groups_allowed, wanted)
            }
            other => {
                let mut config = self.clone();
                config.set(other.clone());
                config == *self
            }
        }
    }

    pub(super) fn set(&mut self, setting: ConfigField) {
        match setting {
            ConfigField::AccessModel(v) => self.access_model = v,
            ConfigField::BodyXslt(v) => self.body_xslt = v,
            ConfigField::Contact(v) => replace_set(&mut self.contact, v),
            ConfigField::DataformXslt(v) => self.dataform_xslt = v,
            ConfigField::DeliverNotifications(v) => self.deliver_notifications = v,
            ConfigField::DeliverPayloads(v) => self.deliver_payloads = v,
            ConfigField::Description(v) => self.description = v,
            ConfigField::ItemExpire(v) => self.item_expire = v,
            ConfigField::ItemReply(v) => self.itemreply = v,
            ConfigField::Language(v) => self.language = v,
            ConfigField::MaxItems(v) => self.max_items = v,
            ConfigField::MaxPayloadSize(v) => self.max_payload_size = v,
            ConfigField::NotificationType(v) => self.notification_type = v,
            ConfigField::NotifyConfig(v) => self.notify_config = v,
            ConfigField::NotifyDelete(v) => self.notify_delete = v,
            ConfigField::NotifyRetract(v) => self.notify_retract = v,
            ConfigField::NotifySub(v) => self.notify_sub = v,
            ConfigField::PersistItems(v) => self.persist_items = v,
            ConfigField::PresenceBasedDelivery(v) => self.presence_based_delivery = v,
            ConfigField::PublishNodeFull(v) => self.publish_node_full = v,
            ConfigField::RosterGroupsAllowed(v) => replace_set(&mut self.roster_groups_allowed, v),
            ConfigField::PurgeOffline(v) => self.purge_offline = v,
            ConfigField::Tempsub(v) => self.tempsub = v,
            ConfigField::PublishModel(v) => self.publish_model = v,
            ConfigField::SendLastPublishedItem(v) => self.send_last_published_item = v,
            ConfigField::Subscribe(v) => self.subscribe = v,
            ConfigField::Title(v) => self.title = v,
            ConfigField::Type(v) => self.r#type = v,
        }
    }
}
