//! How a node behaves (§16.4.4).

use std::collections::BTreeSet;

use jid::{BareJid, Jid};

use crate::{Change, ConfigField, ConfigRevision, Context, Error, Limits, NodeId};

/// Who may subscribe and retrieve items (§4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessModel {
    /// Anyone whom an owner approves, and those on the list.
    Authorize,
    /// Anyone who is no outcast.
    Open,
    /// Those who have the presence of an owner, and those on the list.
    Presence,
    /// Those who are in some groups of an owner's roster, and those on the list.
    Roster,
    /// Owners, publishers and members.
    Whitelist,
}

impl AccessModel {
    /// Returns `true` if it looks at rosters.
    #[must_use]
    pub fn reads_rosters(self) -> bool {
        matches!(self, Self::Presence | Self::Roster)
    }
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
    /// Returns `true` if it is sent to whoever subscribes.
    #[must_use]
    pub fn is_on_sub(self) -> bool {
        self != Self::Never
    }
}

/// The publisher that a node's items show (§12.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemReply {
    /// None.
    None,
    /// The owner of the node.
    Owner,
    /// The publisher of the item.
    Publisher,
}

fn is_same_set<T: Ord>(some: &[T], others: &[T]) -> bool {
    some.iter().collect::<BTreeSet<_>>() == others.iter().collect()
}

/// Replaces the values of a field whose order has no meaning. The same values in another order are no change.
fn replace_set<T: Ord>(values: &mut Vec<T>, submitted: Vec<T>) {
    if !is_same_set(values, &submitted) {
        *values = submitted;
    }
}

/// What a node has in texts, with its name and its creator, in bytes.
const MAX_BYTES: usize = 3800;

/// How a node behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The publisher that items show.
    pub itemreply: ItemReply,
    /// The language of what is published, as a tag (RFC 5646); empty if that is not said.
    pub language: String,
    /// How many items are kept.
    pub max_items: MaxItems,
    /// The largest payload, in bytes, if the limits allow as much.
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
    /// The groups that the access model [`Roster`](AccessModel::Roster) admits.
    pub roster_groups_allowed: Vec<String>,
    /// When the last item is sent.
    pub send_last_published_item: SendLastPublishedItem,
    /// Whether anybody may subscribe who is not subscribed yet.
    pub subscribe: bool,
    /// Whether subscriptions end when their subscriber is not available any more (§12.5).
    pub tempsub: bool,
    /// A name for people.
    pub title: String,
    /// The semantic type of the data, usually the namespace of the payloads (§16.4.4); it limits nothing.
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
            // SPEC-DEVIATION: the default of `publish_node_full` in the XEP is `retract-oldest`. What makes room for
            // itself is then told twice, and clients that keep what they have seen lose it; so that has to be asked
            // for.
            publish_node_full: PublishNodeFull::DiscardOldest,
            purge_offline: false,
            roster_groups_allowed: Vec::new(),
            // §4.3. SPEC: nobody is asked for presence because of it; it is sent to those who send theirs.
            send_last_published_item: SendLastPublishedItem::OnSubAndPresence,
            subscribe: true,
            tempsub: false,
            title: String::new(),
            r#type: String::new(),
        }
    }

    /// Returns `true` if a node depends on the presence of its subscribers, or of its publishers, so that it has to be known.
    pub(super) fn depends_on_presence(&self) -> bool {
        self.presence_based_delivery || self.purge_offline || self.tempsub
    }

    /// Whether the service can read the roster that gives access, where one is chosen.
    ///
    /// # Errors
    /// [`Error::UnsupportedAccessModel`] where rosters would have to be read, and cannot be.
    pub(super) fn check_model(&self, cx: &Context<'_>) -> Result<(), Error> {
        match self.access_model.reads_rosters() && !cx.reads_rosters {
            true => Err(Error::UnsupportedAccessModel),
            false => Ok(()),
        }
    }

    /// Checks that name, creator, entities of the revision and all texts of the configuration of a node fit into a row
    /// together.
    ///
    /// # Errors
    /// [`Error::BadSetting`].
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
        // A creator is not written twice.
        let others = [Some(&revision.changed_by), revision.roster_owner.as_ref()];
        let others = others.into_iter().flatten().filter(|other| *other != creator);
        let others = others.chain(revision.other_last_owner());
        let others: usize = others.map(|other| other.as_str().len()).sum();
        let names = node.as_str().len() + creator.as_str().len() + others;
        match all.sum::<usize>() + names > MAX_BYTES {
            true => Err(Error::BadSetting { field: "pubsub#node_config", max: MAX_BYTES }),
            false => Ok(()),
        }
    }

    /// The configuration as it has effect under these limits, which may be lower than when it was made.
    #[must_use]
    pub fn within(mut self, limits: &Limits) -> Self {
        if let MaxItems::Number(_) = self.max_items {
            self.max_items = MaxItems::Number(self.max_items.within(limits));
        }
        self.max_payload_size = self.max_payload_size.min(limits.max_payload_bytes);
        self
    }

    /// What becomes of a node's items that are too many or too large together.
    pub(super) fn eviction(&self, limits: &Limits) -> Change {
        let keep = if self.persist_items { self.max_items.within(limits) } else { 0 };
        Change::ItemsEvicted { keep, max_bytes: limits.max_node_bytes }
    }

    /// This configuration with some settings changed.
    ///
    /// # Errors
    /// [`Error::BadSetting`] for a value past a limit; nothing of the request holds then.
    pub fn with(mut self, settings: &[ConfigField], limits: &Limits) -> Result<Self, Error> {
        for setting in settings {
            setting.check(limits)?;
            self.set(setting.clone());
        }
        Ok(self)
    }

    /// Returns `true` if a node of this configuration behaves as a publisher wants it (§7.1.5) under these limits. `max` is the
    /// service's number, values past a limit are met by no node, and fields with several values are sets.
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
