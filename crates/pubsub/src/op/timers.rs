//! Timer-driven changes of a node: leases end (§12.19), digests are sent, items expire (§16.4.4, `pubsub#item_expire`),
//! and entities that are no longer in a roster lose their subscriptions (§4.5).

use std::borrow::Cow;
use std::collections::BTreeSet;

use jid::{BareJid, Jid};

use crate::{
    Actor, Change, Changes, ConfiguredSubscription, Context, Decision, DeliveryVariant, Error,
    Event, IdGenerator, Item, ItemId, LogEntry, Node, NodeId, NotificationType, Operation,
    Prefetch, Prefetched, Recipients, ShowSet, SubscriptionDetails, Timestamp,
    notify::{
        fanout::Fanout,
        state_changes::{push_entries, state_change_entries},
    },
};

use super::{presence_change::loses_own_items, reevaluate_all, require_node, retract::retractions};

/// Maximum number of items that expire in one decision. If further items have expired, the next decision is due
/// immediately.
pub const MAX_EXPIRED: usize = 100;
/// Maximum number of lease notices in one decision.
const MAX_LEASE_NOTICES: usize = 1000;
/// Maximum number of items in a digest. If there are more items, the digest has the newest ones.
pub const MAX_DIGESTED: usize = 100;
/// Total size of the digests ([`LogEntry::size`]) at which one decision stops building digests.
const MAX_DIGESTS_BYTES: usize = 1024 * 1024;

/// Returns the earliest due time of the timers (lease, digest, item expiry, roster check) that a decision with
/// `changes` starts at a node. Returns `None` if the decision starts no timer.
#[must_use]
pub fn next_deadline(node: &Node, changes: &Changes) -> Option<Timestamp> {
    let by_change = changes.iter().filter_map(|change| match change {
        Change::SubscriptionOptionsSet(_, details) => {
            details.iter().filter_map(SubscriptionDetails::next_deadline).min()
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
    let digests =
        node.configured_subscriptions().flat_map(|(_, configured)| configured.details.iter());
    let digests =
        digests.filter(|details| awaits_digest(node, details)).map(SubscriptionDetails::digest_due);
    by_change.chain(digests).min()
}

/// Returns `true` if the node has events since the last digest of this subscription.
fn awaits_digest(node: &Node, details: &SubscriptionDetails) -> bool {
    details.uses_digests(node.config.persist_items) && node.sequence > details.digested_to
}

/// Returns `true` if digests of the node are pending, so that its items have to be read.
#[must_use]
pub fn makes_digests(node: &Node) -> bool {
    node.configured_subscriptions().any(|(_, configured)| {
        configured.details.iter().any(|details| awaits_digest(node, details))
    })
}

/// Part of the due work at a node that one decision processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All work. The limits for item expiry, lease notices and digests are halved `halvings` times, but are at least 1.
    Everything {
        /// Number of halvings.
        halvings: u32,
    },
    /// Only the end of subscriptions. Subscriptions end even while the backlog (the queue of pending notifications) is
    /// full.
    Ends,
}

impl Extent {
    /// Returns the limit halved `halvings` times, at least 1; 0 for [`Ends`](Self::Ends).
    fn within(self, limit: usize) -> usize {
        match self {
            Self::Everything { halvings } => limit.checked_shr(halvings).unwrap_or(0).max(1),
            Self::Ends => 0,
        }
    }

    /// Returns the next larger part of the due work; the same part if there is no larger one.
    #[must_use]
    pub fn doubled(self) -> Self {
        match self {
            Self::Everything { halvings } => {
                Self::Everything { halvings: halvings.saturating_sub(1) }
            }
            Self::Ends => Self::Ends,
        }
    }

    /// Returns the next smaller part of the due work; the same part if there is no smaller one.
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
    /// Time of the next timer-driven changes; `None` if there are none.
    pub next: Option<Timestamp>,
    /// Creator of the node.
    pub creator: Option<BareJid>,
    /// Entities whose presence the node needs.
    pub watched: Vec<BareJid>,
    /// Publishers with items that the node removes when the publisher becomes unavailable.
    pub publishers: BTreeSet<BareJid>,
}

/// Timer-driven changes of a node.
#[derive(Clone, Copy, Debug)]
pub struct RunTimers<'a> {
    /// Node.
    pub node: &'a NodeId,
    /// Part of the due work that is processed.
    pub extent: Extent,
}

impl Operation for RunTimers<'_> {
    type Output = TimerOutcome;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Timers
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<TimerOutcome>, Error> {
        let Prefetched { items, newest, has_interested, .. } = prefetched;
        run_timers(node, items, newest, *has_interested, self.extent, cx)
    }
}

/// Decides the timer-driven changes. `oldest` has the oldest items, at most one more than [`MAX_EXPIRED`]. `newest` has
/// the newest items. `has_interested` is `true` if resources announce interest in the node by entity capabilities
/// (`+notify`), or if notifications for such resources are pending. The reply has the time of the next changes and the
/// entities to watch.
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
    let mut run = TimerRun { node, cx, extent, lease_notices: Vec::new(), next: Vec::new() };
    let mut changes = Changes::none(node);
    let expired = run.expired(oldest);
    for id in &expired {
        changes.push(Change::Retracted(id.clone()));
    }
    for (jid, configured) in node.configured_subscriptions() {
        let details = run.remaining(jid, configured);
        if details.is_empty() {
            changes.push(Change::Unsubscribed(jid.clone()));
        } else if *details != *configured.details {
            changes.push(Change::SubscriptionOptionsSet(jid.clone(), details.into()));
        }
    }
    let has_readers = node.subscribers_len() > 0 || has_interested;
    if node.config.access_model.reads_rosters() && has_readers {
        reevaluate_all(node, &node.config, &mut changes, cx);
        run.next.push(cx.now.later_by(cx.limits().roster_seconds.max(1).saturating_mul(1000)));
    }
    let is_postponed = changes.iter().next().is_some() || !run.lease_notices.is_empty();
    let digests = run.digests(newest, is_postponed, &mut changes);
    let mut notifications = state_change_entries(node, &node.config, &mut changes, cx);
    notifications.extend(push_entries(node, run.lease_notices, &mut changes, cx));
    notifications.extend(digests);
    let is_notified = node.config.notify_retract;
    if !expired.is_empty() {
        let fanout = &mut Fanout::new(node, &node.config, cx);
        notifications.extend(retractions(node, &expired, is_notified, &mut changes, fanout)?);
    }
    let publishers = publishers(node, newest);
    let reply = TimerOutcome {
        next: run.next.into_iter().min(),
        creator: Some(node.creator.clone()),
        watched: watched_entities(node).chain(publishers.iter().cloned()).collect(),
        publishers,
    };
    Ok(Decision { reply, changes, notifications })
}

/// Returns the publishers with items that the node removes when the publisher becomes unavailable. `newest` has the
/// newest items of the node.
fn publishers(node: &Node, newest: &[Item]) -> BTreeSet<BareJid> {
    let last = newest.last().filter(|_| node.config.purge_offline);
    let all = newest.iter().map(|item| &item.publisher);
    let limited = all.filter(|publisher| loses_own_items(node, publisher));
    limited.chain(last.map(|item| &item.publisher)).cloned().collect()
}

/// Returns the entities whose presence is needed for subscriptions at a node.
fn watched_entities(node: &Node) -> impl Iterator<Item = BareJid> {
    let is_watched = |configured: &ConfiguredSubscription| {
        configured.details.iter().any(SubscriptionDetails::depends_on_presence)
    };
    let configured =
        node.configured_subscriptions().filter(move |(_, configured)| is_watched(configured));
    let configured = configured.map(|(jid, _)| jid.to_bare());
    let all = node.subscribers().chain(node.pending());
    let all = all.filter(|_| node.config.depends_on_subscriber_presence()).map(Jid::to_bare);
    configured.chain(all)
}

/// Timer-driven decision at one node.
struct TimerRun<'a> {
    node: &'a Node,
    cx: &'a Context<'a>,
    extent: Extent,
    /// Lease notices with their recipients.
    lease_notices: Vec<(Event, Recipients)>,
    /// Times at which further timer-driven changes are due.
    next: Vec<Timestamp>,
}

impl TimerRun<'_> {
    /// Returns the expired items, and adds the time at which the next item expires to `next`.
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

    /// Returns the subscriptions of a JID, without those with an ended lease. Adds the lease notices that are due to
    /// `lease_notices`.
    fn remaining(
        &mut self,
        jid: &Jid,
        configured: &ConfiguredSubscription,
    ) -> Vec<SubscriptionDetails> {
        let max = self.extent.within(MAX_LEASE_NOTICES);
        let is_over =
            |details: &SubscriptionDetails| details.end().is_some_and(|end| end <= self.cx.now);
        let mut remaining: Vec<_> =
            configured.details.iter().filter(|details| !is_over(details)).cloned().collect();
        for details in &mut remaining {
            if max == 0 {
                self.next.extend(details.end());
                continue;
            }
            let is_due = details.lease_notice_at().is_some_and(|at| at <= self.cx.now);
            if is_due && !details.expiry_notified && self.lease_notices.len() < max {
                details.expiry_notified = true;
                let event = Event::Subscription {
                    jid: None,
                    subid: details.subid.clone(),
                    state: self.node.state_of(jid),
                    expiry: details.end(),
                };
                self.lease_notices.push((event, Recipients::one(jid.clone())));
            }
            self.next.extend(details.next_deadline());
        }
        remaining
    }

    /// Builds due digests until their total size reaches `MAX_DIGESTS_BYTES`, or no digests if `is_postponed` is
    /// `true`. Adds the due times of the other digests to `next`.
    fn digests(
        &mut self,
        newest: &[Item],
        is_postponed: bool,
        changes: &mut Changes,
    ) -> Vec<LogEntry> {
        let node = self.node;
        let max = self.extent.within(MAX_DIGESTS_BYTES);
        if max == 0 {
            return Vec::new();
        }
        let (mut digests, mut bytes) = (Vec::new(), 0);
        for (jid, configured) in
            node.configured_subscriptions().filter(|(_, configured)| !configured.is_pending)
        {
            let pending = configured.details.iter().filter(|details| awaits_digest(node, details));
            let Some(due) = pending.map(SubscriptionDetails::digest_due).min() else { continue };
            if is_postponed || bytes >= max || due > self.cx.now {
                self.next.push(due);
                continue;
            }
            let mut all = configured.details.to_vec();
            for details in all.iter_mut().filter(|details| awaits_digest(node, details)) {
                let digest = self.digest(jid, details, newest, changes.version());
                bytes += digest.iter().map(LogEntry::size).sum::<usize>();
                digests.extend(digest);
            }
            changes.push(Change::SubscriptionOptionsSet(jid.clone(), all.into()));
        }
        digests
    }

    /// Builds the digest of a subscription, if the digest is due: a log entry for each item that was published since
    /// the last digest. Each entry is a message of its own.
    fn digest(
        &mut self,
        jid: &Jid,
        details: &mut SubscriptionDetails,
        newest: &[Item],
        as_of: u64,
    ) -> Vec<LogEntry> {
        if details.digest_due() > self.cx.now {
            self.next.push(details.digest_due());
            return Vec::new();
        }
        let (node, config) = (self.node, &self.node.config);
        let shows = details.options.show_values;
        let checks_presence = config.presence_based_delivery || shows != ShowSet::ALL;
        let variant = DeliveryVariant {
            has_body: details.options.include_body,
            subids: details.subid.iter().cloned().collect(),
            shows: checks_presence.then_some(shows),
        };
        let is_new = |item: &&Item| item.event_id.sequence > details.digested_to;
        let items = newest.iter().filter(is_new);
        let items = items.filter(|item| details.options.matches(item.payload.as_ref()));
        let digest: Vec<_> = items
            .filter_map(|item| {
                let at = (as_of, self.cx.ids.next_u64());
                let resent = LogEntry::resent(node, config, item, jid, at)?;
                let notification_type = NotificationType::Normal;
                Some(LogEntry { variant: variant.clone(), notification_type, ..resent })
            })
            .collect();
        details.digested_to = node.sequence;
        if !digest.is_empty() {
            details.digested_at = self.cx.now;
        }
        digest
    }
}
