//! What subscribers hear of.

use jid::{BareJid, Jid};

use super::{
    Affiliation, Item, ItemId, ItemReply, Node, NodeConfig, NodeId, NotificationType, Payload,
    Place, Recipients, SubscriptionState, Timestamp,
};

/// A change at a node, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Whoever hears of it is this here now (§8.9.4).
    Affiliated(Affiliation),
    /// The node behaves differently; with its new configuration if the node delivers payloads
    /// (§8.2.5.3).
    Configured(Option<Box<NodeConfig>>),
    /// The node is gone; perhaps others took its place (§8.4.2).
    Deleted {
        /// The URI of the node to turn to.
        redirect: Option<String>,
    },
    /// Items came, or an event without an item (§7.1.2).
    Published(Vec<EventItem>),
    /// All items are gone (§8.5.2).
    Purged,
    /// A JID asks to be subscribed (§8.6).
    Requested(Jid),
    /// Items are gone (§7.2.2).
    Retracted(Vec<ItemId>),
    /// The subscription of a JID, or of whoever hears of it, is in this state now (§12.14).
    Subscription(Option<Jid>, SubscriptionState),
}

/// An item in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventItem {
    /// Its name.
    pub id: ItemId,
    /// Who published it.
    pub publisher: BareJid,
    /// What, if the node delivers payloads.
    pub payload: Option<Payload>,
}

/// Who hears of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// These, subscribed or not.
    Entities(Recipients),
    /// One JID, as long as it is subscribed.
    One(Jid),
    /// All who are subscribed after the change; for a deletion, all who were.
    Subscribers,
}

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Where it happened.
    pub node: NodeId,
    /// Its place in the node's order.
    pub place: Place,
    /// Which it is of what is told besides an event of this place; 0 is the event.
    pub index: u16,
    /// What happened.
    pub event: Event,
    /// Who hears of it.
    pub audience: Audience,
    /// The type of message that carries it.
    pub notification_type: NotificationType,
    /// Whom readers should answer (§12.17).
    pub reply_to: Vec<BareJid>,
    /// When it happened.
    pub happened: Timestamp,
    /// Whether it is told again, as the last item that there was before a subscription (§6.1.7).
    pub is_last_item: bool,
}

impl Notification {
    /// Tells the subscribers of a node, unless it delivers no notifications.
    pub(super) fn to_subscribers(
        node: &Node,
        config: &NodeConfig,
        place: Place,
        event: Event,
        now: Timestamp,
    ) -> Option<Self> {
        Self::new(node, config, place, event, Audience::Subscribers, now)
    }

    /// Sends one subscriber the last item that there was before it came (§6.1.7).
    pub(super) fn of_last_item(node: &Node, last: &Item, subscriber: Jid) -> Option<Self> {
        let event = Event::Published(vec![EventItem::of(last, &node.config)]);
        let audience = Audience::One(subscriber);
        let mut notification =
            Self::new(node, &node.config, last.place, event, audience, last.published)?;
        notification.is_last_item = true;
        Some(notification)
    }

    /// Tells some entities what concerns them, whatever the node delivers to subscribers.
    pub(super) fn notice(
        node: &Node,
        place: Place,
        index: u16,
        event: Event,
        audience: Audience,
        now: Timestamp,
    ) -> Self {
        Self {
            node: node.id.clone(),
            place,
            index,
            event,
            audience,
            notification_type: NotificationType::Normal,
            reply_to: Vec::new(),
            happened: now,
            is_last_item: false,
        }
    }

    /// About how many bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let payload = |item: &EventItem| item.payload.as_ref().map_or(0, |p| p.xml().len());
        match &self.event {
            Event::Published(items) => items.iter().map(|item| 1000 + payload(item)).sum(),
            Event::Retracted(ids) => 1000 * ids.len(),
            Event::Affiliated(_)
            | Event::Configured(_)
            | Event::Deleted { .. }
            | Event::Purged
            | Event::Requested(_)
            | Event::Subscription(..) => 1000,
        }
    }

    fn new(
        node: &Node,
        config: &NodeConfig,
        place: Place,
        event: Event,
        audience: Audience,
        happened: Timestamp,
    ) -> Option<Self> {
        config.deliver_notifications.then(|| Self {
            node: node.id.clone(),
            place,
            index: 0,
            reply_to: reply_to(node, config.itemreply, &event),
            event,
            audience,
            notification_type: config.notification_type,
            happened,
            is_last_item: false,
        })
    }
}

impl EventItem {
    /// An item as the node shows it in an event.
    pub(super) fn of(item: &Item, config: &NodeConfig) -> Self {
        Self {
            id: item.id.clone(),
            publisher: item.publisher.clone(),
            payload: item.payload.clone().filter(|_| config.deliver_payloads),
        }
    }
}

/// Owners that an event names; all of them could make it larger than a stanza may be.
const MAX_REPLY_TO: usize = 10;

/// §12.17; items of one event have one publisher, for one request published them.
fn reply_to(node: &Node, itemreply: ItemReply, event: &Event) -> Vec<BareJid> {
    match (itemreply, event) {
        (ItemReply::Owner, Event::Published(_)) => {
            node.owners().take(MAX_REPLY_TO).cloned().collect()
        }
        (ItemReply::Publisher, Event::Published(items)) => {
            items.first().map(|item| item.publisher.clone()).into_iter().collect()
        }
        _ => Vec::new(),
    }
}
