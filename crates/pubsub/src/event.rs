//! What subscribers hear of.

use std::{borrow::Cow, iter};

use jid::{BareJid, Jid};

use crate::{
    Affiliation, Attribution, Changes, EventId, Item, ItemId, Node, NodeConfig, NodeId,
    NotificationType, Payload, Recipients, ShowSet, SubId, SubscriptionDetails,
    SubscriptionOptions, SubscriptionState, Timestamp,
};

/// A change at a node, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Whoever hears of it is this here now (§8.9.4).
    AffiliationChanged(Affiliation),
    /// An owner says something.
    Announced(String),
    /// The node behaves differently; with its new configuration if the node delivers payloads
    /// (§8.2.5.3).
    Configured(Option<Box<NodeConfig>>),
    /// The node is gone; perhaps others took its place (§8.4.2).
    Deleted {
        /// The URI of the node to turn to.
        redirect: Option<String>,
    },
    /// An item, or an event without an item (§7.1.2). Entries of layout 9 may have several.
    Published(Vec<EventItem>),
    /// All items are gone (§8.5.2).
    Purged,
    /// A JID asks to be subscribed (§8.6).
    ApprovalRequested(Jid),
    /// An item is gone (§7.2.2). Entries of layout 9 may have several.
    Retracted(Vec<ItemId>),
    /// A subscription is in this state now (§12.14).
    Subscription {
        /// Whose; if it is not said, that of whoever hears of it.
        jid: Option<Jid>,
        /// Which of that JID's.
        subid: Option<SubId>,
        /// How it is.
        state: SubscriptionState,
        /// When it ends, if that is soon (§12.19).
        expiry: Option<Timestamp>,
    },
}

/// An item in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventItem {
    /// Its name.
    pub id: ItemId,
    /// The JID that it shows as its publisher, if it shows one (§12.17).
    pub publisher: Option<BareJid>,
    /// What, if the node delivers payloads.
    pub payload: Option<Payload>,
}

/// Who hears of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// These, subscribed or not.
    Explicit(Recipients),
    /// Resources with an implicit subscription (§12.2), as long as they have access.
    Interested(Recipients),
    /// These, as long as they are subscribed.
    Listed(Recipients),
    /// All who are subscribed after the change, but for those with options or SubIDs; for a deletion, all who were.
    Subscribers,
}

/// How an event looks to some of its recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryVariant {
    /// Whether its items are told in the body too (§12.8).
    pub has_body: bool,
    /// For which subscriptions of the only recipient, or of whom it says something, it is (§12.16). Where recipients differ
    /// in this, [`Recipients::subids`] has them.
    pub subids: Vec<SubId>,
    /// In which states of availability it comes to a recipient; nothing if that is not looked at (§12.3).
    pub shows: Option<ShowSet>,
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it happened.
    pub node: NodeId,
    /// Its place in the node's order.
    pub event_id: EventId,
    /// The index of an item that is sent again ([`Item::index`]); else 0, but for entries of layout 9.
    pub index: u16,
    /// What happened.
    pub event: Event,
    /// Who hears of it.
    pub audience: Audience,
    /// The version of the node as of which subscribers get it: those whose subscription began before
    /// ([`is_entitled`]).
    pub as_of: u64,
    /// How it looks to them.
    pub variant: DeliveryVariant,
    /// The type of message that carries it.
    pub notification_type: NotificationType,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Of an item that is sent again (as the last item, §6.1.7; because it was missed, XEP-0312; in a digest): a number
    /// by which the ids of these messages differ from those of the first time.
    pub nonce: Option<u64>,
}

/// Returns `true` if a subscriber gets an entry for subscribers: its subscription began before the version as of which the entry
/// is, and, of entries for those without options and SubIDs, it had none up to that version.
///
/// The one rule for it: applied when an event is committed, and when pending entries are read after a restart.
#[must_use]
pub fn is_entitled(began: u64, plain_until: u64, as_of: u64) -> bool {
    began < as_of && as_of <= plain_until
}

/// The most recipients that one notification names. What is stored of it names all of them.
pub(super) const MAX_LISTED: usize = 10_000;

impl Event {
    /// Returns `true` if it is a lease notice (§12.19).
    #[must_use]
    pub fn is_lease_notice(&self) -> bool {
        matches!(self, Self::Subscription { expiry: Some(_), .. })
    }
}

impl LogEntry {
    /// The JIDs whose subscription entitles a recipient: the recipient itself; for resent items also its bare JID.
    pub fn subscriptions_of<'a>(
        &self,
        recipient: &'a Jid,
    ) -> impl Iterator<Item = Cow<'a, Jid>> + use<'a> {
        let is_again = self.nonce.is_some() && !recipient.is_bare();
        let bare = is_again.then(|| Cow::Owned(recipient.to_bare().into()));
        iter::once(Cow::Borrowed(recipient)).chain(bare)
    }

    /// A stored item for one subscriber, if the terms of its subscription allow it (§6.1.7), and in the states of
    /// availability that they name.
    pub(super) fn of_item(
        node: &Node,
        config: &NodeConfig,
        item: &Item,
        (subscriber, terms): (&Jid, &SubscriptionDetails),
        (as_of, nonce): (u64, u64),
    ) -> Option<Self> {
        let attribution = Attribution::of(node, config);
        let event = Event::Published(vec![EventItem::of(item, config, &attribution)]);
        let payload = item.payload.as_ref().filter(|_| config.deliver_payloads);
        let is_wanted = |options: &SubscriptionOptions| options.matches(payload);
        let view = DeliveryVariant::of(&event, config, std::slice::from_ref(terms), is_wanted)?;
        let again = Self::again(node, config, item, subscriber, (as_of, nonce))?;
        Some(Self { variant: view, ..again })
    }

    /// An item that is there already, for one subscriber.
    pub(super) fn again(
        node: &Node,
        config: &NodeConfig,
        item: &Item,
        subscriber: &Jid,
        (as_of, nonce): (u64, u64),
    ) -> Option<Self> {
        let attribution = Attribution::of(node, config);
        let event = Event::Published(vec![EventItem::of(item, config, &attribution)]);
        let audience = Audience::Listed(Recipients::one(subscriber.clone()));
        let again =
            Self::new(node, config, (item.event_id, as_of), event, audience, item.published)?;
        Some(Self { index: item.index, nonce: Some(nonce), ..again })
    }

    /// Tells some entities what concerns them, whatever the node delivers to subscribers. It takes the next place.
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

    /// The same as a headline, which servers do not store for users who are offline; nothing if presence does not matter, or
    /// it is a headline anyway.
    #[must_use]
    pub fn as_headline(&self) -> Option<Self> {
        let notification_type = NotificationType::Headline;
        let is_changed =
            self.variant.shows.is_some() && self.notification_type != notification_type;
        is_changed.then(|| Self { notification_type, ..self.clone() })
    }

    /// About how many bytes it takes in memory.
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

    /// An event for an audience, unless the node delivers no notifications.
    pub(super) fn new(
        node: &Node,
        config: &NodeConfig,
        (place, as_of): (EventId, u64),
        event: Event,
        audience: Audience,
        happened: Timestamp,
    ) -> Option<Self> {
        config.deliver_notifications.then(|| Self {
            node: node.id.clone(),
            event_id: place,
            index: 0,
            event,
            audience,
            as_of,
            variant: DeliveryVariant {
                shows: config.presence_based_delivery.then_some(ShowSet::ALL),
                ..DeliveryVariant::default()
            },
            notification_type: config.notification_type,
            occurred_at: happened,
            nonce: None,
        })
    }
}

impl DeliveryVariant {
    /// The view of an event for a JID with these subscriptions; `None` if none of them selects it. The matching
    /// keywords are given.
    pub(super) fn of(
        event: &Event,
        config: &NodeConfig,
        terms: &[SubscriptionDetails],
        is_wanted: impl Fn(&SubscriptionOptions) -> bool,
    ) -> Option<Self> {
        let want = |terms: &&SubscriptionDetails| terms.want(event, config, &is_wanted);
        let wanted: Vec<_> = terms.iter().filter(want).collect();
        // §12.16: not with a configuration event, and when a node is purged or deleted.
        let is_of_items = matches!(event, Event::Published(_) | Event::Retracted(_));
        let subids = wanted.iter().filter(|_| is_of_items).filter_map(|terms| terms.subid.clone());
        let subids = subids.collect();
        // SPEC: of several subscriptions of a JID with different `show-values` one message comes, in all states of these.
        let shows = wanted.iter().map(|terms| terms.options.show_values).reduce(ShowSet::or)?;
        let is_looked_at = config.presence_based_delivery || shows != ShowSet::ALL;
        // §12.8: with a body for all of them, if one wants it.
        let has_body = matches!(event, Event::Published(_))
            && terms.iter().any(|terms| terms.options.include_body);
        Some(Self { has_body, subids, shows: is_looked_at.then_some(shows) })
    }
}

impl SubscriptionDetails {
    /// Returns `true` if an event is sent to this subscription when it happens. SPEC: what a digest cannot have later is sent
    /// at once: items of a node that keeps none, and other events than items.
    fn want(
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
    /// An item as the node shows it in an event.
    #[must_use]
    pub fn of(item: &Item, config: &NodeConfig, attribution: &Attribution) -> Self {
        Self {
            id: item.id.clone(),
            publisher: attribution.publisher_of(item).cloned(),
            payload: item.payload.clone().filter(|_| config.deliver_payloads),
        }
    }
}
