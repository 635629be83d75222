//! Effects of presence at a node: temporary subscriptions end (§12.5), items are removed (`pubsub#purge_offline`), and
//! the last item is sent (`pubsub#send_last_published_item`).

use std::borrow::Cow;
use std::collections::HashSet;

use jid::{BareJid, Jid};

use crate::{
    Actor, Affiliation, Change, Changes, Context, Decision, DeliveryVariant, Error, Event, Expire,
    IdGenerator, Item, ItemId, ItemPosition, LogEntry, Node, NodeId, Operation, OwnItems, Prefetch,
    Prefetched, SendLastPublishedItem, ShowSet, SubscriptionDetails, Timestamp, access,
    notify::{fanout::Fanout, state_changes::state_change_entries},
};

use super::{require_node, retract::retractions, subscribe, subscription_options::options_change};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["presence-notifications", "presence-subscribe", "since"];

/// Returns the entities whose presence the node needs after these changes.
pub fn watched_entities<'a>(
    node: &'a Node,
    changes: &'a Changes,
) -> impl Iterator<Item = BareJid> + 'a {
    let is_configured = changes.iter().any(|change| matches!(change, Change::Configured(_)));
    let of_all = is_configured && node.config.depends_on_subscriber_presence();
    let all = node.subscribers().chain(node.pending()).take(if of_all { usize::MAX } else { 0 });
    let some = changes.iter().filter_map(|change| match change {
        Change::SubscribedByOwner(jid) => Some(jid),
        _ => requested_subscription(change),
    });
    let some = some.filter(|jid| depends_on_presence_of(node, jid));
    all.chain(some).map(Jid::to_bare).chain(publishers(node, changes))
}

/// Returns `true` if these changes contain a request of the entity for a subscription, or for options, that depend on
/// the presence of the entity.
#[must_use]
pub fn asks(node: &Node, changes: &Changes, entity: &BareJid) -> bool {
    let mut requested = changes.iter().filter_map(requested_subscription);
    requested.any(|jid| jid.to_bare() == *entity && depends_on_presence_of(node, jid))
}

/// Returns the JID of a subscription that an entity can request by this change.
fn requested_subscription(change: &Change) -> Option<&Jid> {
    match change {
        Change::SubscriptionRequested(jid)
        | Change::Subscribed(jid)
        | Change::SubscriptionOptionsSet(jid, _) => Some(jid),
        _ => None,
    }
}

/// Returns `true` if subscriptions of exactly this address at a node depend on the presence of the entity.
#[must_use]
pub fn is_needed(node: &Node, entity: &BareJid) -> bool {
    let pending = node.pending_of_address(entity);
    let mut own = node.subscriptions_of_address(entity).chain(pending);
    own.any(|jid| depends_on_presence_of(node, jid))
}

/// Returns `true` if the subscription of a JID depends on its presence.
fn depends_on_presence_of(node: &Node, jid: &Jid) -> bool {
    node.config.depends_on_subscriber_presence()
        || node.details_of(jid).iter().any(SubscriptionDetails::depends_on_presence)
}

/// Returns the publishers of items in these changes, if the node removes items of publishers that become unavailable
/// (`pubsub#purge_offline`).
pub fn publishers<'a>(node: &'a Node, changes: &'a Changes) -> impl Iterator<Item = BareJid> + 'a {
    let published = changes.iter().filter_map(|change| match change {
        Change::Published(item) => Some(item.publisher.clone()),
        _ => None,
    });
    published.filter(|_| node.config.purge_offline)
}

/// Returns `true` if the publishers of the newest items have to be read, because the changes make the node depend on
/// their presence.
#[must_use]
pub fn needs_newest_publisher(node: &Node, changes: &Changes) -> bool {
    let is_configured = changes.iter().any(|change| matches!(change, Change::Configured(_)));
    node.config.purge_offline && is_configured
}

/// Maximum number of missed items of a node that a returning resource is sent.
pub const MAX_MISSED: usize = 100;

/// Returns the entries for a resource that becomes available. If the presence of the resource says since when the
/// resource was away (`gone_since`), the entries send the items that it missed. If there are none, or without
/// `gone_since`, the entries send the last item, if the node sends it on presence.
#[must_use]
pub fn on_available(
    node: &Node,
    jid: &Jid,
    gone_since: Option<Timestamp>,
    newest: &[Item],
    ids: &dyn IdGenerator,
) -> Vec<LogEntry> {
    let mut sent =
        gone_since.map_or_else(Vec::new, |since| missed_items(node, jid, since, newest, ids));
    if sent.is_empty() {
        sent = last(node, jid, newest.last(), ids);
    }
    sent
}

/// Returns entries that send the items that were published while a resource was away (XEP-0312). SPEC: missed items are
/// sent if delivery depends on presence, in three cases: the node has `presence_based_delivery`, the node sends its
/// last item on presence, or the subscription has `show-values`.
fn missed_items(
    node: &Node,
    jid: &Jid,
    since: Timestamp,
    newest: &[Item],
    ids: &dyn IdGenerator,
) -> Vec<LogEntry> {
    let config = &node.config;
    let depends_on_presence = config.presence_based_delivery
        || config.send_last_published_item == SendLastPublishedItem::OnSubAndPresence;
    let missed: Vec<Item> = newest.iter().filter(|i| i.published >= since).cloned().collect();
    let mut sent = Vec::new();
    for own in own_subscriptions(node, jid) {
        for details in node.details_of(&own).iter() {
            if depends_on_presence || details.options.show_values != ShowSet::ALL {
                sent.extend(missed.iter().filter_map(|item| {
                    let at = (node.version + 1, ids.next_u64());
                    let sent = LogEntry::of_item(node, config, item, (jid, details), at)?;
                    Some(in_wanted_states(sent, details))
                }));
            }
        }
    }
    sent
}

/// Returns the JIDs under which a resource receives notifications of the node: its bare JID and its full JID, if
/// subscribed.
fn own_subscriptions(node: &Node, jid: &Jid) -> Vec<Jid> {
    let bare = jid.to_bare();
    let all = node.subscriptions_of_address(&bare);
    all.filter(|other| other.is_bare() || *other == jid).cloned().collect()
}

/// Returns the entries that send the last item to the subscriptions of a resource that becomes available.
fn last(node: &Node, jid: &Jid, last: Option<&Item>, ids: &dyn IdGenerator) -> Vec<LogEntry> {
    if node.config.send_last_published_item != SendLastPublishedItem::OnSubAndPresence {
        return Vec::new();
    }
    let sent = own_subscriptions(node, jid).into_iter().flat_map(|other| {
        let details = node.details_of(&other);
        let sent = details.iter().map(|details| {
            let at = (node.version + 1, ids.next_u64());
            let sent = subscribe::last_item(node, &node.config, last, (&other, details), at)?;
            Some(in_wanted_states(sent, details))
        });
        sent.collect::<Vec<_>>()
    });
    sent.flatten().collect()
}

/// Limits an entry to the states of availability that the options select (§16.4.2). The entry sends an item to a
/// resource that becomes available.
fn in_wanted_states(sent: LogEntry, details: &SubscriptionDetails) -> LogEntry {
    let shows = Some(details.options.show_values).filter(|shows| *shows != ShowSet::ALL);
    LogEntry { variant: DeliveryVariant { shows, ..sent.variant }, ..sent }
}

/// Presence of type unavailable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnavailablePresence {
    /// Full JID of the resource; a bare JID if the resource is unknown.
    pub jid: Jid,
    /// `true` if the resource was the last available one of the entity.
    pub is_last: bool,
}

/// Departure of an entity from a node: the entity became unavailable.
#[derive(Clone, Copy, Debug)]
pub struct Depart<'a> {
    /// Node.
    pub node: &'a NodeId,
    /// Bare JID of the entity.
    pub entity: &'a BareJid,
    /// Presence of the entity.
    pub presence: &'a UnavailablePresence,
}

impl Operation for Depart<'_> {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Departure(self.entity)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        let (newest, enrolled) = (prefetched.newest.last(), &prefetched.enrolled);
        on_unavailable(node, self.presence, newest, enrolled, cx)
    }
}

/// Retraction of a page of a publisher's own items, because the publisher became unavailable. The reply is the position
/// after which the publisher may have more items.
#[derive(Clone, Copy, Debug)]
pub struct RetractOwn<'a> {
    /// Node.
    pub node: &'a NodeId,
    /// Page of items.
    pub own: OwnItems<'a>,
}

impl Operation for RetractOwn<'_> {
    type Output = Option<ItemPosition>;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::OwnItems(self.own)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<Option<ItemPosition>>, Error> {
        let decision = retract_own(node, self.own.publisher, &prefetched.items, cx)?;
        Ok(decision.map(|()| prefetched.more_after))
    }
}

/// Decides what happens at a node when an entity becomes unavailable. `newest` is the newest item of the node.
/// `enrolled` has those JIDs of the entity whose subscriptions an owner created.
///
/// SPEC-DEVIATION: §16.4.4 says that `purge_offline` applies to the relevant publisher, and purges all items. Here the
/// relevant publisher is the publisher of the newest item. The node is purged only if this publisher may change the
/// items of all publishers. Without this condition, an entity could remove all items of an open node by going offline.
/// If a publisher may change only its own items, only these are removed, by [`retract_own`].
///
/// SPEC-DEVIATION: §12.5 makes all subscriptions of a node with `tempsub` temporary. Here the subscriptions that owners
/// created do not end. From their end, an owner would learn that the entity went offline, but the entity shares its
/// presence only with the service, for other subscriptions.
///
/// # Errors
/// [`Error::NodeNotFound`].
pub fn on_unavailable(
    node: Option<&Node>,
    presence: &UnavailablePresence,
    newest: Option<&Item>,
    enrolled: &HashSet<Jid>,
    cx: &Context<'_>,
) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    let bare = presence.jid.to_bare();
    let mut changes = Changes::none(node);
    let is_unavailable = |jid: &&Jid| match jid.is_bare() {
        true => presence.is_last,
        false => presence.jid.is_bare() || **jid == presence.jid,
    };
    let own = node.subscriptions_of_address(&bare).chain(node.pending_of_address(&bare));
    for jid in own.filter(is_unavailable) {
        let mut details = node.details_of(jid).into_owned();
        let before = details.len();
        let is_temporary = node.config.tempsub && !enrolled.contains(jid);
        details.retain(|details| !is_temporary && details.options.expire != Expire::Presence);
        if details.is_empty() {
            changes.push(Change::Unsubscribed(jid.clone()));
        } else if details.len() < before {
            changes.push(options_change(node, jid.clone(), details)?);
        }
    }
    let mut notifications = state_change_entries(node, &node.config, &mut changes, cx);
    let is_purged = node.config.purge_offline
        && presence.is_last
        && newest.is_some_and(|item| item.publisher == bare)
        && access::may_all_be_changed_by(node, &bare);
    if is_purged {
        let at = (changes.next_event_id(node.epoch), changes.version());
        changes.push(Change::Purged);
        if node.config.notify_retract {
            notifications.extend(Fanout::new(node, &node.config, cx).notify(at, Event::Purged)?);
        }
    }
    Ok(Decision { reply: (), changes, notifications })
}

/// Maximum number of items that one decision retracts because their publisher became unavailable.
pub const MAX_RETRACTED: usize = 100;

/// Returns `true` if a node removes only the publisher's own items when the publisher becomes unavailable, because the
/// publisher may not change other items. The items of outcasts remain, because outcasts may not retract items.
#[must_use]
pub fn loses_own_items(node: &Node, publisher: &BareJid) -> bool {
    node.config.purge_offline
        && !access::may_all_be_changed_by(node, publisher)
        && node.affiliation_of(publisher) != Affiliation::Outcast
}

/// Decides to retract the items of a publisher that becomes unavailable and [loses its own items](loses_own_items).
/// `own` has a batch of the publisher's items.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::TooManyNotifications`].
pub fn retract_own(
    node: Option<&Node>,
    publisher: &BareJid,
    own: &[Item],
    cx: &Context<'_>,
) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    let mut changes = Changes::none(node);
    let is_lost = |item: &&Item| item.publisher == *publisher && loses_own_items(node, publisher);
    let own = own.iter().filter(is_lost);
    let items: Vec<ItemId> = own.map(|item| item.id.clone()).collect();
    for id in &items {
        changes.push(Change::Retracted(id.clone()));
    }
    let fanout = &mut Fanout::new(node, &node.config, cx);
    let is_notified = node.config.notify_retract;
    let notifications = retractions(node, &items, is_notified, &mut changes, fanout)?;
    Ok(Decision { reply: (), changes, notifications })
}
