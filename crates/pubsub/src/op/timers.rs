//! Timer-driven changes of a node: leases end (§12.19), digests are sent, items expire (§16.4.4, `pubsub#item_expire`),
//! and entities that are no longer in a roster lose their subscriptions (§4.5).

use std::collections::BTreeSet;

use jid::{BareJid, Jid};

use crate::{
    Change, Changes, ConfiguredSubscription, Context, Decision, DeliveryVariant, Error, Event,
    Item, ItemId, LogEntry, Node, NotificationType, Recipients, ShowSet, SubscriptionDetails,
    Timestamp,
    notify::{
        fanout::Fanout,
        state_changes::{push_entry, state_change_entries},
    },
};

use super::{presence_change::loses_own_items, reevaluate_all, require_node, retract::retractions};

/// Maximum number of items that expire in one decision; the next ones follow at once.
pub const MAX_EXPIRED: usize = 100;
/// Maximum number of lease notices in one decision.
const MAX_LEASE_NOTICES: usize = 1000;
/// Maximum number of items in a digest; the newest are included.
pub const MAX_DIGESTED: usize = 100;
/// Bytes of digests ([`LogEntry::size`]) after which one decision builds no more.
const MAX_DIGESTS_BYTES: usize = 1024 * 1024;

/// Returns the time of the next timer-driven changes that these changes cause; `None` if they cause none.
#[must_use]
pub fn next_deadline(node: &Node, changes: &Changes) -> Option<Timestamp> {
    let by_change = changes.iter().filter_map(|change| match change {
        Change::SubscriptionOptionsSet(_, terms) => {
            terms.iter().filter_map(SubscriptionDetails::next_deadline).min()
        }
        Change::Configured(config) => {
            let is_timed =
                config.item_expire.millis().is_some() || config.access_model.reads_rosters();
            is_timed.then_some(Timestamp(0))
        }
        // At a node with subscribers the roster is checked regularly anyway.
        Change::Subscribed(_) | Change::SubscribedByOwner(_) => {
            let is_first = node.subscribers_len() <= changes.iter().count();
            (is_first && node.config.access_model.reads_rosters()).then_some(Timestamp(0))
        }
        Change::Published(item) => {
            node.config.item_expire.millis().map(|age| item.published.later_by(age))
        }
        _ => None,
    });
    let digests = node.specials().flat_map(|(_, special)| special.terms.iter());
    let digests =
        digests.filter(|terms| awaits_digest(node, terms)).map(SubscriptionDetails::digest_due);
    by_change.chain(digests).min()
}

/// Returns `true` if the node has events since the last digest of this subscription.
fn awaits_digest(node: &Node, terms: &SubscriptionDetails) -> bool {
    terms.uses_digests(node.config.persist_items) && node.sequence > terms.digested_to
}

/// Returns `true` if digests of the node are pending, so that its items have to be read.
#[must_use]
pub fn makes_digests(node: &Node) -> bool {
    node.specials().any(|(_, special)| special.terms.iter().any(|terms| awaits_digest(node, terms)))
}

/// How much of the due work at a node one decision processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All work; item expiry, lease notices and digests up to their limits, which are halved this many times but at
    /// least one.
    Everything {
        /// Number of halvings.
        halvings: u32,
    },
    /// Only ends of subscriptions, which need no room in the backlog.
    Ends,
}

impl Extent {
    /// Returns the halved limit, at least 1.
    fn within(self, limit: usize) -> usize {
        match self {
            Self::Everything { halvings } => limit.checked_shr(halvings).unwrap_or(0).max(1),
            Self::Ends => 0,
        }
    }

    /// Returns the next larger extent.
    #[must_use]
    pub fn doubled(self) -> Self {
        match self {
            Self::Everything { halvings } => {
                Self::Everything { halvings: halvings.saturating_sub(1) }
            }
            Self::Ends => Self::Ends,
        }
    }

    /// Returns the next smaller extent; itself at the minimum.
    #[must_use]
    pub fn halved(self) -> Self {
        match self {
            Self::Everything { halvings } if self.within(MAX_DIGESTS_BYTES) > 1 => {
                Self::Everything { halvings: halvings + 1 }
            }
            least => least,
        }
    }
}

/// Result of timer-driven changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimerOutcome {
    /// Time of the next changes.
    pub next: Option<Timestamp>,
    /// Creator of the node.
    pub creator: Option<BareJid>,
    /// Entities on whose presence the node depends.
    pub watched: Vec<BareJid>,
    /// Publishers whose items are removed when they become unavailable.
    pub publishers: BTreeSet<BareJid>,
}

/// Decides the timer-driven changes, given the oldest items, at most one more than [`MAX_EXPIRED`], and the newest.
/// `has_interested` tells whether resources are interested in the node by their capabilities, or notifications for such
/// resources are pending. The reply has the time of the next changes and the entities to watch.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::TooManyNotifications`].
pub fn run_timers(
    node: Option<&Node>,
    oldest: &[Item],
    newest: &[Item],
    has_interested: bool,
    extent: Extent,
    cx: &Context<'_>,
) -> Result<Decision<TimerOutcome>, Error> {
    let node = require_node(node)?;
    let mut passing = TimerRun { node, cx, extent, warnings: Vec::new(), next: Vec::new() };
    let mut changes = Changes::none(node);
    let expired = passing.expired(oldest);
    for id in &expired {
        changes.push(Change::Retracted(id.clone()));
    }
    for (jid, special) in node.specials() {
        let terms = passing.terms(jid, special);
        if terms.is_empty() {
            changes.push(Change::Unsubscribed(jid.clone()));
        } else if *terms != *special.terms {
            changes.push(Change::SubscriptionOptionsSet(jid.clone(), terms.into()));
        }
    }
    let has_readers = node.subscribers_len() > 0 || has_interested;
    if node.config.access_model.reads_rosters() && has_readers {
        reevaluate_all(node, &node.config, &mut changes, cx);
        passing.next.push(cx.now.later_by(cx.limits().roster_seconds.max(1).saturating_mul(1000)));
    }
    let has_more = changes.iter().next().is_some() || !passing.warnings.is_empty();
    let digests = passing.digests(newest, has_more, &mut changes);
    let mut notifications = state_change_entries(node, &node.config, &mut changes, cx);
    notifications.extend(push_entry(node, passing.warnings, &mut changes, cx));
    notifications.extend(digests);
    let is_notified = node.config.notify_retract;
    if !expired.is_empty() {
        let fanout = &mut Fanout::new(node, &node.config, cx);
        notifications.extend(retractions(node, &expired, is_notified, &mut changes, fanout)?);
    }
    let publishers = publishers(node, newest);
    let reply = TimerOutcome {
        next: passing.next.into_iter().min(),
        creator: Some(node.creator.clone()),
        watched: watched_entities(node).chain(publishers.iter().cloned()).collect(),
        publishers,
    };
    Ok(Decision { reply, changes, notifications })
}

/// Returns the publishers whose items are removed from a node when they become unavailable, given its newest items.
fn publishers(node: &Node, newest: &[Item]) -> BTreeSet<BareJid> {
    let last = newest.last().filter(|_| node.config.purge_offline);
    let all = newest.iter().map(|item| &item.publisher);
    let limited = all.filter(|publisher| loses_own_items(node, publisher));
    limited.chain(last.map(|item| &item.publisher)).cloned().collect()
}

/// Returns the entities on whose presence subscriptions at a node depend.
fn watched_entities(node: &Node) -> impl Iterator<Item = BareJid> {
    let is_watched = |special: &ConfiguredSubscription| {
        special.terms.iter().any(SubscriptionDetails::looks_at_presence)
    };
    let special = node.specials().filter(move |(_, special)| is_watched(special));
    let special = special.map(|(jid, _)| jid.to_bare());
    let all = node.subscribers().chain(node.pending());
    let all = all.filter(|_| node.config.depends_on_presence()).map(Jid::to_bare);
    special.chain(all)
}

/// Timer-driven decision at one node.
struct TimerRun<'a> {
    node: &'a Node,
    cx: &'a Context<'a>,
    extent: Extent,
    /// Lease notices with their recipients.
    warnings: Vec<(Event, Recipients)>,
    /// Times of further work.
    next: Vec<Timestamp>,
}

impl TimerRun<'_> {
    /// Returns the expired items.
    fn expired(&mut self, oldest: &[Item]) -> Vec<ItemId> {
        let max = self.extent.within(MAX_EXPIRED);
        let age = self.node.config.item_expire.millis().filter(|_| max > 0);
        let Some(age) = age else { return Vec::new() };
        let end = |item: &Item| item.published.later_by(age);
        let expired = oldest.iter().take(max).take_while(|item| end(item) <= self.cx.now);
        let expired: Vec<_> = expired.map(|item| item.id.clone()).collect();
        // If all given items have expired, there may be more: the next run is due at once.
        let next = oldest.get(expired.len()).or_else(|| oldest.last()).map(end);
        self.next.extend(next);
        expired
    }

    /// Returns the subscriptions of a JID whose leases have not ended, with their lease notices sent.
    fn terms(&mut self, jid: &Jid, special: &ConfiguredSubscription) -> Vec<SubscriptionDetails> {
        let max = self.extent.within(MAX_LEASE_NOTICES);
        let is_over =
            |terms: &SubscriptionDetails| terms.end().is_some_and(|end| end <= self.cx.now);
        let mut left: Vec<_> =
            special.terms.iter().filter(|terms| !is_over(terms)).cloned().collect();
        for terms in &mut left {
            if max == 0 {
                self.next.extend(terms.end());
                continue;
            }
            let is_due = terms.warned_at().is_some_and(|at| at <= self.cx.now);
            if is_due && !terms.expiry_notified && self.warnings.len() < max {
                terms.expiry_notified = true;
                let event = Event::Subscription {
                    jid: None,
                    subid: terms.subid.clone(),
                    state: self.node.state_of(jid),
                    expiry: terms.end(),
                };
                self.warnings.push((event, Recipients::one(jid.clone())));
            }
            self.next.extend(terms.next_deadline());
        }
        left
    }

    /// Builds due digests up to `MAX_DIGESTS_BYTES`, unless `have_to_wait` is set; the rest is rescheduled.
    fn digests(
        &mut self,
        newest: &[Item],
        have_to_wait: bool,
        changes: &mut Changes,
    ) -> Vec<LogEntry> {
        let node = self.node;
        let max = self.extent.within(MAX_DIGESTS_BYTES);
        if max == 0 {
            return Vec::new();
        }
        let (mut made, mut bytes) = (Vec::new(), 0);
        for (jid, special) in node.specials().filter(|(_, special)| !special.is_pending) {
            let awaited = special.terms.iter().filter(|terms| awaits_digest(node, terms));
            let Some(due) = awaited.map(SubscriptionDetails::digest_due).min() else { continue };
            if have_to_wait || bytes >= max || due > self.cx.now {
                self.next.push(due);
                continue;
            }
            let mut all = special.terms.to_vec();
            for terms in all.iter_mut().filter(|terms| awaits_digest(node, terms)) {
                let digest = self.digest(jid, terms, newest, changes.version());
                bytes += digest.iter().map(LogEntry::size).sum::<usize>();
                made.extend(digest);
            }
            changes.push(Change::SubscriptionOptionsSet(jid.clone(), all.into()));
        }
        made
    }

    /// Builds the digest of the items that were published since the last one, if it is due: a message for each item.
    fn digest(
        &mut self,
        jid: &Jid,
        terms: &mut SubscriptionDetails,
        newest: &[Item],
        as_of: u64,
    ) -> Vec<LogEntry> {
        if terms.digest_due() > self.cx.now {
            self.next.push(terms.digest_due());
            return Vec::new();
        }
        let (node, config) = (self.node, &self.node.config);
        let shows = terms.options.show_values;
        let is_looked_at = config.presence_based_delivery || shows != ShowSet::ALL;
        let view = DeliveryVariant {
            has_body: terms.options.include_body,
            subids: terms.subid.iter().cloned().collect(),
            shows: is_looked_at.then_some(shows),
        };
        let is_new = |item: &&Item| item.event_id.sequence > terms.digested_to;
        let items = newest.iter().filter(is_new);
        let items = items.filter(|item| terms.options.matches(item.payload.as_ref()));
        let digest: Vec<_> = items
            .filter_map(|item| {
                let at = (as_of, self.cx.ids.next_u64());
                let again = LogEntry::again(node, config, item, jid, at)?;
                let notification_type = NotificationType::Normal;
                Some(LogEntry { variant: view.clone(), notification_type, ..again })
            })
            .collect();
        terms.digested_to = node.sequence;
        if !digest.is_empty() {
            terms.digested_at = self.cx.now;
        }
        digest
    }
}
