//! What time does at a node: leases end (§12.19), digests are made, items expire (§16.4.4, `pubsub#item_expire`), and
//! who is not in a roster any more loses its subscription (§4.5).

use jid::{BareJid, Jid};

use crate::pubsub::{
    Audience, Change, Changes, Context, Decision, Event, EventItem, Item, ItemId, Node,
    Notification, Recipients, Refusal, Shows, Special, Terms, Timestamp, View, notices::notices,
};

use super::{existing, settle_all};

/// Items that go at once; the next ones go right after them.
pub const MAX_EXPIRED: usize = 100;
/// Items of a digest. Of more the newest come.
pub const MAX_DIGESTED: usize = 100;
/// One decision makes no more digests once they have together so many bytes ([`Notification::size`]).
const MAX_DIGESTS_BYTES: usize = 1024 * 1024;

/// When time has something to do at a node after these changes, if it has not already.
#[must_use]
pub fn due(node: &Node, changes: &Changes) -> Option<Timestamp> {
    let by_change = changes.iter().filter_map(|change| match change {
        Change::Agreed(_, terms) => terms.iter().filter_map(Terms::due).min(),
        Change::Configured(config) => {
            let is_timed =
                config.item_expire.millis().is_some() || config.access_model.reads_rosters();
            is_timed.then_some(Timestamp(0))
        }
        // Where somebody was before, rosters are looked at anyway.
        Change::Subscribed(_) | Change::Enrolled(_) => {
            let is_first = node.subscribers_len() <= changes.iter().count();
            (is_first && node.config.access_model.reads_rosters()).then_some(Timestamp(0))
        }
        Change::Published(item) => {
            node.config.item_expire.millis().map(|age| item.published.later_by(age))
        }
        _ => None,
    });
    let digests = node.specials().flat_map(|(_, special)| special.terms.iter());
    let digests = digests.filter(|terms| awaits_digest(node, terms)).map(Terms::digest_due);
    by_change.chain(digests).min()
}

/// Whether something happened since the last digest.
fn awaits_digest(node: &Node, terms: &Terms) -> bool {
    terms.is_digested(node.config.persist_items) && node.seq > terms.digested
}

/// Whether a node has to be read for digests.
#[must_use]
pub fn makes_digests(node: &Node) -> bool {
    node.specials().any(|(_, special)| special.terms.iter().any(|terms| awaits_digest(node, terms)))
}

/// What time did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// When it does more.
    pub next: Option<Timestamp>,
    /// Whose presence has to do with the node.
    pub watched: Vec<BareJid>,
    /// Whose items go from it when it goes.
    pub publisher: Option<BareJid>,
}

/// Decides what time does, given the oldest items, at most one more than [`MAX_EXPIRED`], and the newest; says when
/// it does more, and whom to watch.
///
/// # Errors
/// [`Refusal::NodeNotFound`].
pub fn expire(
    node: Option<&Node>,
    oldest: &[Item],
    newest: &[Item],
    cx: &Context<'_>,
) -> Result<Decision<Passed>, Refusal> {
    let node = existing(node)?;
    let mut passing = Passing { node, cx, told: Vec::new(), told_bytes: 0, next: Vec::new() };
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
            changes.push(Change::Agreed(jid.clone(), terms.into()));
        }
    }
    if node.config.access_model.reads_rosters() && node.subscribers_len() > 0 {
        settle_all(node, &node.config, &mut changes, cx);
        passing.next.push(cx.now.later_by(cx.limits().roster_seconds.max(1).saturating_mul(1000)));
    }
    // What has to end does not wait for room for digests.
    let has_more = changes.iter().next().is_some() || !passing.told.is_empty();
    passing.digests(newest, has_more, &mut changes);
    let mut notifications = notices(node, &node.config, &mut changes, cx);
    notifications.append(&mut passing.told);
    for (index, notice) in (1..).zip(&mut notifications) {
        notice.index = index;
    }
    let place = node.next_place();
    if !expired.is_empty() || !notifications.is_empty() {
        changes.advance_to(place);
    }
    if !expired.is_empty() && node.config.notify_retract {
        let event = Event::Retracted(expired);
        notifications.extend(Notification::to_subscribers(
            node,
            &node.config,
            place,
            event,
            cx.now,
        ));
    }
    let publisher = newest.last().filter(|_| node.config.purge_offline);
    let reply = Passed {
        next: passing.next.into_iter().min(),
        watched: watched(node, newest),
        publisher: publisher.map(|item| item.publisher.clone()),
    };
    Ok(Decision { reply, changes, notifications })
}

/// Those whose presence has to do with a node, given its newest items.
fn watched(node: &Node, newest: &[Item]) -> Vec<BareJid> {
    let is_watched = |special: &Special| special.terms.iter().any(Terms::looks_at_presence);
    let special = node.specials().filter(|(_, special)| is_watched(special));
    let special = special.map(|(jid, _)| jid.to_bare());
    let all = node.subscribers().filter(|_| node.config.looks_at_presence()).map(Jid::to_bare);
    let publisher = newest.last().filter(|_| node.config.purge_offline);
    special.chain(all).chain(publisher.map(|item| item.publisher.clone())).collect()
}

/// Time passes at a node.
struct Passing<'a> {
    node: &'a Node,
    cx: &'a Context<'a>,
    /// What is told besides what all notices say.
    told: Vec<Notification>,
    /// How much that is ([`Notification::size`]).
    told_bytes: usize,
    /// When more is to be done.
    next: Vec<Timestamp>,
}

impl Passing<'_> {
    /// The items that go.
    fn expired(&mut self, oldest: &[Item]) -> Vec<ItemId> {
        let Some(age) = self.node.config.item_expire.millis() else { return Vec::new() };
        let end = |item: &Item| item.published.later_by(age);
        let expired = oldest.iter().take(MAX_EXPIRED).take_while(|item| end(item) <= self.cx.now);
        let expired: Vec<_> = expired.map(|item| item.id.clone()).collect();
        // Those that were looked at may not be all that have to go.
        let next = oldest.get(expired.len()).or_else(|| oldest.last()).map(end);
        self.next.extend(next);
        expired
    }

    /// What is left of a JID's subscriptions.
    fn terms(&mut self, jid: &Jid, special: &Special) -> Vec<Terms> {
        let is_over = |terms: &Terms| terms.end().is_some_and(|end| end <= self.cx.now);
        let mut left: Vec<_> =
            special.terms.iter().filter(|terms| !is_over(terms)).cloned().collect();
        for terms in &mut left {
            if terms.warned_at().is_some_and(|at| at <= self.cx.now) && !terms.is_warned {
                terms.is_warned = true;
                let event = Event::Subscription {
                    jid: None,
                    subid: terms.subid.clone(),
                    state: self.node.state_of(jid),
                    expiry: terms.end(),
                };
                let audience = Audience::Entities(Recipients::one(jid.clone()));
                self.tell(event, audience, View::default());
            }
            self.next.extend(terms.due());
        }
        left
    }

    /// Makes the digests that are due, as far as they are small together, unless they have to wait.
    fn digests(&mut self, newest: &[Item], have_to_wait: bool, changes: &mut Changes) {
        let node = self.node;
        for (jid, special) in node.specials().filter(|(_, special)| !special.is_pending) {
            let awaited = special.terms.iter().filter(|terms| awaits_digest(node, terms));
            let Some(due) = awaited.map(Terms::digest_due).min() else { continue };
            if have_to_wait || self.told_bytes >= MAX_DIGESTS_BYTES || due > self.cx.now {
                self.next.push(due);
                continue;
            }
            let mut all = special.terms.to_vec();
            for terms in all.iter_mut().filter(|terms| awaits_digest(node, terms)) {
                self.digest(jid, special.since, terms, newest);
            }
            changes.push(Change::Agreed(jid.clone(), all.into()));
        }
    }

    /// Makes a digest of what was published since the last one, and since the subscription began, if that is due.
    fn digest(&mut self, jid: &Jid, since: u64, terms: &mut Terms, newest: &[Item]) {
        if terms.digest_due() > self.cx.now {
            self.next.push(terms.digest_due());
            return;
        }
        let is_new = |item: &&Item| item.place.seq > terms.digested.max(since);
        let is_told = self.node.config.deliver_notifications;
        let items = newest.iter().filter(is_new).filter(|_| is_told);
        let items = items.filter(|item| terms.options.wants(item.payload.as_ref()));
        let items: Vec<_> = items.map(|item| EventItem::of(item, &self.node.config)).collect();
        terms.digested = self.node.seq;
        if !items.is_empty() {
            terms.digested_at = self.cx.now;
            let subids = terms.subid.iter().cloned().collect();
            let shows = terms.options.show_values;
            let is_looked_at = self.node.config.presence_based_delivery || shows != Shows::ALL;
            let shows = is_looked_at.then_some(shows);
            let view = View { has_body: terms.options.include_body, subids, shows };
            let audience = Audience::Listed(Recipients::one(jid.clone()));
            self.tell(Event::Published(items), audience, view);
        }
    }

    fn tell(&mut self, event: Event, audience: Audience, view: View) {
        let (node, place) = (self.node, self.node.next_place());
        let notice = Notification::notice(node, place, 1, event, audience, self.cx.now);
        self.told_bytes += notice.size();
        self.told.push(Notification { view, ..notice });
    }
}
