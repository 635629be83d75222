//! Events and log entries: changes at a node and their audiences.

use std::{borrow::Cow, iter};

use jid::{BareJid, Jid};

use crate::{
    Affiliation, Attribution, Changes, EventId, Item, ItemId, Node, NodeConfig, NodeId,
    NotificationType, Payload, Recipients, ShowSet, SubId, SubscriptionDetails,
    SubscriptionOptions, SubscriptionState, Timestamp,
};

/// Change at a node that may be sent to its subscribers or other entities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The affiliation of the recipients changed to this one (§8.9.4).
    AffiliationChanged(Affiliation),
    /// An owner sent a text announcement.
    Announced(String),
    /// The configuration of the node changed. The value is the new configuration, if the node delivers payloads
    /// (§8.2.5.3).
    Configured(Option<Box<NodeConfig>>),
    /// The node was deleted (§8.4.2).
    Deleted {
        /// URI of the node that replaces the deleted one.
        redirect: Option<String>,
    },
    /// An item was published (§7.1.2). An empty list means an event without an item. Entries of store layout 9 may have
    /// several items.
    Published(Vec<EventItem>),
    /// All items were removed (§8.5.2).
    Purged,
    /// A JID requested a subscription that an owner has to approve (§8.6).
    ApprovalRequested(Jid),
    /// An item was retracted (§7.2.2). Entries of store layout 9 may have several items.
    Retracted(Vec<ItemId>),
    /// The state of a subscription changed, or its lease ends soon (§12.14).
    Subscription {
        /// JID of the subscription; `None` if the recipient is the subscriber.
        jid: Option<Jid>,
        /// SubID, if the JID can have several subscriptions.
        subid: Option<SubId>,
        /// New state of the subscription.
        state: SubscriptionState,
        /// End of the lease, in a lease notice (§12.19).
        expiry: Option<Timestamp>,
    },
}

/// Item in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventItem {
    /// Name of the item.
    pub id: ItemId,
    /// JID that the item shows as its publisher, if it shows one (§12.17).
    pub publisher: Option<BareJid>,
    /// Payload, if the node delivers payloads.
    pub payload: Option<Payload>,
}

/// Audience of a log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// These recipients, whether or not they are subscribed.
    Explicit(Recipients),
    /// Resources with an implicit subscription (§12.2), as long as they have access.
    Interested(Recipients),
    /// These recipients, as long as they are subscribed.
    Listed(Recipients),
    /// All subscribers without options and SubIDs, as they are after the change. For a deletion, as they were before
    /// the deletion.
    Subscribers,
}

/// Variant in which some recipients of an event are notified.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryVariant {
    /// `true` if the message body repeats the text of the items (§12.8).
    pub has_body: bool,
    /// SubIDs in the notification, if the entry has one recipient (§12.16). They belong to the subscriptions whose
    /// options match the event, or to the subscription that the event is about. An entry with several recipients has
    /// their SubIDs in [`Recipients::subids`].
    pub subids: Vec<SubId>,
    /// States of availability in which a recipient is notified; `None` if availability is not checked (§12.3).
    pub shows: Option<ShowSet>,
}

/// Event with its audience, as it is stored in the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Name of the node.
    pub node: NodeId,
    /// Identifier of the event.
    pub event_id: EventId,
    /// If the entry resends an item: index of the item in the event that published it ([`Item::index`]). Otherwise 0,
    /// except in entries of store layout 9.
    pub index: u16,
    /// The event.
    pub event: Event,
    /// Audience of the entry.
    pub audience: Audience,
    /// Version of the node as of which the audience is resolved: subscriptions that began before this version receive
    /// the entry ([`is_entitled`]).
    pub as_of: u64,
    /// Variant of the notifications.
    pub variant: DeliveryVariant,
    /// Type of the messages.
    pub notification_type: NotificationType,
    /// Time of the event.
    pub occurred_at: Timestamp,
    /// Nonce of a resent item (the last item, §6.1.7; a missed item, XEP-0312; an item of a digest). The nonce makes
    /// the stanza ids differ from those of the first delivery.
    pub nonce: Option<u64>,
}

/// Returns `true` if a subscription receives a log entry: `since < as_of` and `as_of <= plain_until`. `since` is the
/// version of the node at which the subscription began. `as_of` is the version as of which the audience of the entry is
/// resolved. If the entry is for subscribers without options and SubIDs, and the subscription later got options or
/// SubIDs, `plain_until` is the version at which it got them. In all other cases `plain_until` is `u64::MAX`.
///
/// The same rule applies when an event is committed and when pending entries are read after a restart.
#[must_use]
pub fn is_entitled(since: u64, plain_until: u64, as_of: u64) -> bool {
    since < as_of && as_of <= plain_until
}

/// Maximum number of recipients that one log entry lists. A stored entry includes all of them.
pub(super) const MAX_LISTED: usize = 10_000;

impl Event {
    /// Returns `true` if the event is a lease notice (§12.19).
    #[must_use]
    pub fn is_lease_notice(&self) -> bool {
        matches!(self, Self::Subscription { expiry: Some(_), .. })
    }
}

impl LogEntry {
    /// Returns the JIDs whose subscriptions entitle a recipient to this entry: the recipient itself, and its bare JID
    /// if the entry resends an item.
    pub fn subscriptions_of<'a>(
        &self,
        recipient: &'a Jid,
    ) -> impl Iterator<Item = Cow<'a, Jid>> + use<'a> {
        let is_resent = self.nonce.is_some() && !recipient.is_bare();
        let bare = is_resent.then(|| Cow::Owned(recipient.to_bare().into()));
        iter::once(Cow::Borrowed(recipient)).chain(bare)
    }

    /// Returns the entry that resends a stored item to one subscriber, in the delivery variant that its subscription
    /// asks for. Returns `None` if the options of the subscription exclude the item or ask for digests (§6.1.7), or if
    /// the node delivers no notifications.
    pub(super) fn of_item(
        node: &Node,
        config: &NodeConfig,
        item: &Item,
        (subscriber, details): (&Jid, &SubscriptionDetails),
        (as_of, nonce): (u64, u64),
    ) -> Option<Self> {
        let attribution = Attribution::of(node, config);
        let event = Event::Published(vec![EventItem::of(item, config, &attribution)]);
        let payload = item.payload.as_ref().filter(|_| config.deliver_payloads);
        let is_wanted = |options: &SubscriptionOptions| options.matches(payload);
        let variant =
            DeliveryVariant::of(&event, config, std::slice::from_ref(details), is_wanted)?;
        let resent = Self::resent(node, config, item, subscriber, (as_of, nonce))?;
        Some(Self { variant, ..resent })
    }

    /// Returns the entry that resends a stored item to one subscriber; `None` if the node delivers no notifications.
    pub(super) fn resent(
        node: &Node,
        config: &NodeConfig,
        item: &Item,
        subscriber: &Jid,
        (as_of, nonce): (u64, u64),
    ) -> Option<Self> {
        let attribution = Attribution::of(node, config);
        let event = Event::Published(vec![EventItem::of(item, config, &attribution)]);
        let audience = Audience::Listed(Recipients::one(subscriber.clone()));
        let resent =
            Self::new(node, config, (item.event_id, as_of), event, audience, item.published)?;
        Some(Self { index: item.index, nonce: Some(nonce), ..resent })
    }

    /// Returns an entry with a notice for some entities. The notice is sent even if the node delivers no notifications
    /// to subscribers. The event of the entry gets the next sequence number of the node.
    pub(super) fn for_entities(
        node: &Node,
        changes: &mut Changes,
        event: Event,
        audience: Audience,
        now: Timestamp,
    ) -> Self {
        Self {
            node: node.id.clone(),
            event_id: changes.next_event_id(node.epoch),
            index: 0,
            event,
            audience,
            as_of: changes.version(),
            variant: DeliveryVariant::default(),
            notification_type: NotificationType::Normal,
            occurred_at: now,
            nonce: None,
        }
    }

    /// Returns the entry as a headline, which servers do not store for users who are offline; `None` if the
    /// availability of the recipients is not checked, or if the entry is a headline already.
    #[must_use]
    pub fn as_headline(&self) -> Option<Self> {
        let notification_type = NotificationType::Headline;
        let is_changed =
            self.variant.shows.is_some() && self.notification_type != notification_type;
        is_changed.then(|| Self { notification_type, ..self.clone() })
    }

    /// Returns the approximate bytes of the event in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let payload = |item: &EventItem| item.payload.as_ref().map_or(0, |p| p.xml().len());
        match &self.event {
            Event::Published(items) => items.iter().map(|item| 1000 + payload(item)).sum(),
            Event::Retracted(ids) => 1000 * ids.len(),
            Event::Announced(text) => 1000 + text.len(),
            Event::AffiliationChanged(_)
            | Event::Configured(_)
            | Event::Deleted { .. }
            | Event::Purged
            | Event::ApprovalRequested(_)
            | Event::Subscription { .. } => 1000,
        }
    }

    /// Returns an entry with an event for an audience; `None` if the node delivers no notifications.
    pub(super) fn new(
        node: &Node,
        config: &NodeConfig,
        (event_id, as_of): (EventId, u64),
        event: Event,
        audience: Audience,
        occurred_at: Timestamp,
    ) -> Option<Self> {
        config.deliver_notifications.then(|| Self {
            node: node.id.clone(),
            event_id,
            index: 0,
            event,
            audience,
            as_of,
            variant: DeliveryVariant {
                shows: config.presence_based_delivery.then_some(ShowSet::ALL),
                ..DeliveryVariant::default()
            },
            notification_type: config.notification_type,
            occurred_at,
            nonce: None,
        })
    }
}

impl DeliveryVariant {
    /// Returns the variant in which an event is delivered to a JID with these subscriptions; `None` if the event is
    /// sent immediately to none of them. `is_wanted` returns `true` for subscription options without a keyword, or with
    /// a keyword that the event contains.
    pub(super) fn of(
        event: &Event,
        config: &NodeConfig,
        details: &[SubscriptionDetails],
        is_wanted: impl Fn(&SubscriptionOptions) -> bool,
    ) -> Option<Self> {
        let selects = |details: &&SubscriptionDetails| details.selects(event, config, &is_wanted);
        let selected: Vec<_> = details.iter().filter(selects).collect();
        // §12.16: notifications of a configuration, a purge or a deletion have no SubIDs.
        let is_of_items = matches!(event, Event::Published(_) | Event::Retracted(_));
        let subids =
            selected.iter().filter(|_| is_of_items).filter_map(|details| details.subid.clone());
        let subids = subids.collect();
        // SPEC: a JID that has several subscriptions with different `show-values` receives one message, in all states
        // of these subscriptions.
        let shows =
            selected.iter().map(|details| details.options.show_values).reduce(ShowSet::or)?;
        let checks_presence = config.presence_based_delivery || shows != ShowSet::ALL;
        // §12.8: the message has a body if one of the subscriptions asks for it.
        let has_body = matches!(event, Event::Published(_))
            && details.iter().any(|details| details.options.include_body);
        Some(Self { has_body, subids, shows: checks_presence.then_some(shows) })
    }
}

impl SubscriptionDetails {
    /// Returns `true` if an event is sent to this subscription immediately, not in a digest. SPEC: events that a digest
    /// cannot include are sent at once: items of a node that does not keep items, and events other than items.
    fn selects(
        &self,
        event: &Event,
        config: &NodeConfig,
        is_wanted: impl Fn(&SubscriptionOptions) -> bool,
    ) -> bool {
        match event {
            _ if !self.options.deliver => false,
            Event::Published(_) if self.uses_digests(config.persist_items) => false,
            Event::Published(items) if !items.is_empty() => is_wanted(&self.options),
            _ => true,
        }
    }
}

impl EventItem {
    /// Returns an item as the node shows it in an event.
    #[must_use]
    pub fn of(item: &Item, config: &NodeConfig, attribution: &Attribution) -> Self {
        Self {
            id: item.id.clone(),
            publisher: attribution.publisher_of(item).cloned(),
            payload: item.payload.clone().filter(|_| config.deliver_payloads),
        }
    }
}
