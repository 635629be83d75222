//! Tracker of the presence of entities on the current connection, and queue of presence requests.

mod outages;
mod previous_connections;
mod request_queue;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jid::{AccountKey, BareJid, Jid};
use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use gjallar_pubsub::{NodeId, Show, ShowSet, Timestamp, op::presence_change::UnavailablePresence};

use crate::service::domain_quota::DomainQuota;

use previous_connections::{PreviousResource, is_from_before};
use request_queue::{Requests, Share};

/// Maximum number of entities whose presence is known or requested. The presence of further entities is ignored.
const MAX_ENTITIES: usize = 200_000;
/// Maximum number of recorded refusals to share presence.
const MAX_REFUSALS: usize = 100_000;
/// Maximum number of changed refusals in one write to the store.
const MAX_REFUSALS_WRITTEN: usize = 500;
/// Minimum interval between two evictions of watched entities (entities whose presence is needed).
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of nodes per entity at which the items of the entity are removed when the entity goes offline.
const MAX_PUBLISHED_AT: usize = 1000;
/// Maximum number of resources of a watched entity.
const MAX_RESOURCES: usize = 32;
/// Maximum number of resources of an entity that is not watched.
const MAX_UNWANTED: usize = 8;
/// Timeout, from the beginning of a connection, after which events no longer wait for presence.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for an entity to grant its presence. Servers immediately repeat a grant that an entity gave before.
const GRANT_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout for the answer to a probe. Until this timeout has passed, an entity for which no event waits any more counts
/// as available in two cases: it was available before the connection broke, or nothing is known about it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after a probe at which the entity is pinged, if it has sent no stanza since the probe.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum interval at which pending log entries that wait for presence are checked again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which events wait for further resources after the first answer to a probe. Servers send the answers for all
/// resources of an entity shortly after one another.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// Presence of entities, and the nodes that need it.
#[derive(Debug, Default)]
pub struct PresenceTracker {
    /// Number of notifications withheld because of presence.
    withheld: Withheld,
    table: Mutex<PresenceTable>,
    asked: Notify,
    answered: Notify,
    probed: Notify,
    refused: Notify,
    failed: Notify,
    ping_queued: Notify,
}

/// Number of notifications withheld because of presence, by reason.
pub(in crate::service) type Withheld = Family<[(&'static str, &'static str); 1], Counter>;

/// Request for the presence of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRequest {
    /// The entity.
    pub entity: BareJid,
    /// `true` for a probe of an entity that shares its presence; `false` for a request to share it.
    pub is_probe: bool,
    /// `true` if the request repeats an earlier one, so the presence may no longer be needed.
    pub is_doubtful: bool,
}

/// Availability of a JID for events that depend on its presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// The event is sent.
    Available,
    /// The event is sent as a headline: the JID may be unavailable, because its presence has not arrived yet.
    Assumed,
    /// The event is withheld: no resource is known to be in a presence state that the subscription asks for
    /// (`pubsub#show-values`).
    Unavailable,
    /// The event waits: the presence was requested on this connection and has not arrived.
    Unknown,
}

/// Presence as received from a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceUpdate {
    /// Availability state.
    pub show: Show,
    /// Seconds for which the resource was absent, if its presence states them (XEP-0312).
    pub away_seconds: Option<u64>,
    /// Time of sending, if the server states it (XEP-0203), as in answers to probes.
    pub stamp: Option<Timestamp>,
}

#[derive(Debug)]
struct PresenceTable {
    /// Nodes that need the presence of an entity, or needed it earlier.
    nodes: HashSet<NodeId>,
    /// Nodes that were in the store at the start and whose subscribers are not watched yet.
    unread: HashSet<NodeId>,
    /// Nodes whose items have to be read, because they remove items of publishers that become unavailable.
    unread_publishers: HashSet<NodeId>,
    available: HashMap<BareJid, BTreeMap<String, Show>>,
    /// Resources that were available on earlier connections and have not sent anything since.
    before: HashMap<BareJid, BTreeMap<String, PreviousResource>>,
    /// Resources of earlier connections that have to be pinged on this connection.
    unconfirmed: VecDeque<Jid>,
    /// Queue of presence requests.
    requests: Requests,
    watched: HashMap<BareJid, Watch>,
    /// Entities probed on this connection, with the time.
    probed: VecDeque<(Instant, BareJid)>,
    /// Entities that refused to share their presence.
    refused: HashSet<BareJid>,
    /// Refusals to add to the store (`true`) or to remove from it (`false`).
    unwritten_refusals: BTreeMap<BareJid, bool>,
    /// Nodes at which items of an entity are removed when it goes offline.
    publishers: HashMap<BareJid, BTreeSet<NodeId>>,
    is_connected: bool,
    /// Time at which entities that do not share their presence were last evicted.
    evicted_at: Option<Instant>,
    /// Time until which events wait for presence on this connection; `None` before the first connection.
    answers_until: Option<Instant>,
    /// Time at which the last connection broke.
    broken_at: Option<Instant>,
    /// Quota of each domain for available entities.
    available_quota: DomainQuota,
    /// Quota of each domain for watched entities.
    watched_quota: DomainQuota,
    /// Quota of each domain for recorded refusals to share presence.
    refusal_quota: DomainQuota,
}

/// State of a watched entity, which is an entity whose presence is needed.
#[derive(Clone, Debug, Default)]
struct Watch {
    /// Account of the creator of a node that needs the presence. The queue of presence requests is round robin over
    /// these accounts.
    share: Share,
    /// Start of the watch. A resource that sent its presence before this time does not count as coming online. `None`
    /// if the watch began on an earlier connection, or if the entity may have missed an event.
    began: Option<Instant>,
    /// `true` if the entity shares its presence.
    is_given: bool,
    is_asked: bool,
    /// Time of the last presence request or probe.
    asked_at: Option<Instant>,
    /// `true` if the presence may no longer be needed.
    is_doubtful: bool,
    /// `true` if no node needs the presence any more, so only pending events may need it. The watch then ends when the
    /// next connection begins.
    is_released: bool,
    /// `true` if the answer to the last request is missing, or is an error that says nothing about the entity.
    has_failed: bool,
    /// `true` if events wait for the answer.
    is_awaited: bool,
    /// `true` if the presence was never received, not even on earlier connections.
    is_new: bool,
    /// `true` if the presence arrived on this connection.
    is_answered: bool,
    /// Time of the first answer of a resource to a probe on this connection.
    answered_at: Option<Instant>,
    /// Last probe; `None` once the entity has sent something.
    unanswered: Option<Probe>,
    /// `true` if the entity is in the list of probed entities.
    is_probed: bool,
}

/// Probe without an answer.
#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    /// Number of the ping that followed the probe.
    ping: Option<u64>,
}

impl Watch {
    /// Returns `true` if the connection broke before the presence arrived and before the timeout for it. Events then
    /// wait for it on the next connection too.
    fn was_cut_off(&self, broken_at: Option<Instant>) -> bool {
        let timeout = if self.is_given { ANSWER_TIMEOUT } else { GRANT_TIMEOUT };
        let is_before = |at: Instant| broken_at.is_some_and(|broken| broken < at + timeout);
        !self.is_answered && self.asked_at.is_none_or(is_before)
    }

    /// Returns `true` if events still wait for the answer. The timeout is short for an entity that does not share its
    /// presence; events do not wait if its server is unreachable.
    fn is_awaited(&self) -> bool {
        !self.has_failed && self.may_arrive(GRANT_TIMEOUT)
    }

    /// Returns `true` if the presence was not requested yet, or may still arrive before the timeout. After an error the
    /// request may be repeated within the timeout.
    fn is_open(&self) -> bool {
        let grant_timeout = if self.has_failed { ANSWER_TIMEOUT } else { GRANT_TIMEOUT };
        let is_late = |at: Instant| at.elapsed() >= ANSWER_TIMEOUT;
        self.may_arrive(grant_timeout) && !self.asked_at.is_some_and(is_late)
    }

    /// Returns `true` if the presence may still arrive. `grant_timeout` is for entities that do not share their
    /// presence.
    fn may_arrive(&self, grant_timeout: Duration) -> bool {
        let is_granted_late = |at: Instant| at.elapsed() >= grant_timeout;
        let is_complete = |at: Instant| at.elapsed() >= ANSWER_GRACE;
        self.is_awaited
            && !self.answered_at.is_some_and(is_complete)
            && (self.is_given || !self.asked_at.is_some_and(is_granted_late))
    }
}

impl Default for PresenceTable {
    fn default() -> Self {
        Self {
            nodes: HashSet::new(),
            unread: HashSet::new(),
            unread_publishers: HashSet::new(),
            available: HashMap::new(),
            before: HashMap::new(),
            unconfirmed: VecDeque::new(),
            requests: Requests::default(),
            watched: HashMap::new(),
            probed: VecDeque::new(),
            refused: HashSet::new(),
            unwritten_refusals: BTreeMap::new(),
            publishers: HashMap::new(),
            is_connected: false,
            evicted_at: None,
            answers_until: None,
            broken_at: None,
            available_quota: DomainQuota::new(MAX_ENTITIES),
            watched_quota: DomainQuota::new(MAX_ENTITIES),
            refusal_quota: DomainQuota::new(MAX_REFUSALS),
        }
    }
}

impl PresenceTracker {
    /// Creates an empty tracker with a counter of withheld notifications.
    pub(in crate::service) fn counting(withheld: Withheld) -> Self {
        Self { withheld, ..Self::default() }
    }

    /// Returns the number of available entities.
    pub(in crate::service) fn len(&self) -> usize {
        self.table().available.len()
    }

    /// Adds a node that was in the store when the service started, and that may depend on the presence of entities. Its
    /// subscribers are watched once the node is read.
    pub(in crate::service) fn begin_at(&self, node: &NodeId) {
        let mut table = self.table();
        table.nodes.insert(node.clone());
        table.unread.insert(node.clone());
        table.unread_publishers.insert(node.clone());
    }

    /// Adds a node whose items have to be read for their publishers.
    pub(in crate::service) fn expect_publishers(&self, node: &NodeId) {
        self.table().unread_publishers.insert(node.clone());
    }

    /// Returns `true` if the items of a node have to be read for their publishers. The next call returns `false`.
    pub(in crate::service) fn take_unread_publishers(&self, node: &NodeId) -> bool {
        self.table().unread_publishers.remove(node)
    }

    /// Records that the subscribers of a node are watched, or that the node is quarantined (closed because of a corrupt
    /// record).
    pub(in crate::service) fn note_read(&self, node: &NodeId) {
        self.table().unread.remove(node);
    }

    /// Watches the recipients of pending notifications that were read from the store at the start. Their presence is
    /// requested first, because these notifications wait for it.
    pub(in crate::service) fn expect_all(&self, entities: impl Iterator<Item = BareJid>) {
        for entity in entities {
            self.request(&entity, None);
            self.ask_first(&entity);
        }
    }

    /// Watches entities whose presence a node needs. `creator` is the account that created the node, if known.
    pub(in crate::service) fn watch(
        &self,
        node: &NodeId,
        creator: Option<&AccountKey>,
        entities: impl Iterator<Item = BareJid>,
    ) {
        for entity in entities {
            self.table().nodes.insert(node.clone());
            self.request(&entity, creator);
        }
    }

    /// Adds a node at which the items of a watched entity are removed when the entity goes offline.
    pub(in crate::service) fn publishes(&self, node: &NodeId, entity: BareJid) {
        let mut table = self.table();
        if table.watched.contains_key(&entity) {
            let nodes = table.publishers.entry(entity).or_default();
            if nodes.len() < MAX_PUBLISHED_AT {
                nodes.insert(node.clone());
            }
        }
    }

    /// Removes and returns the nodes at which the items of an entity are removed when it goes offline.
    pub(in crate::service) fn published_at(&self, entity: &BareJid) -> BTreeSet<NodeId> {
        self.table().publishers.remove(entity).unwrap_or_default()
    }

    /// Returns `true` if there are nodes at which items of an entity are removed when it goes offline.
    pub(in crate::service) fn is_publisher(&self, entity: &BareJid) -> bool {
        let table = self.table();
        let nodes = table.publishers.get(entity);
        nodes.is_some_and(|nodes| nodes.iter().any(|node| table.nodes.contains(node)))
    }

    /// Removes a deleted node.
    pub(in crate::service) fn unwatch(&self, node: &NodeId) {
        let mut table = self.table();
        table.nodes.remove(node);
        table.unread.remove(node);
        table.unread_publishers.remove(node);
    }

    /// Returns `true` if a node needs presence, or needed it earlier.
    pub(in crate::service) fn matters(&self, node: &NodeId) -> bool {
        self.table().nodes.contains(node)
    }

    /// Records that a resource is available; `age` is the age of its presence, if known. Returns `true` if the resource
    /// counts as coming online. The first presence after an interruption of the connection counts as coming online,
    /// unless it was sent before the interruption. The first presence after a subscription that needs presence counts
    /// as coming online, unless it was sent before the subscription. In doubt a resource counts as coming online,
    /// because a repeated last item is harmless, and a missing one is not.
    pub(in crate::service) fn note(
        &self,
        jid: &Jid,
        shown: &PresenceUpdate,
        age: Option<Duration>,
    ) -> bool {
        let mut table = self.table();
        let (entity, resource) = parts(jid);
        table.note_activity(&entity);
        let Some(is_new) = table.add_resource(&entity, &resource, shown.show) else { return false };
        let before = table.take_before(&entity, &resource);
        let has_missed = before.is_some_and(|before| before.has_missed);
        let was_there = age.is_some_and(|age| match before {
            Some(before) => before.was_there(age),
            None => shown.away_seconds.is_none() && table.was_there(&entity, age),
        });
        // Presence without a timestamp is no answer to a probe, and says nothing about other resources.
        if age.is_some()
            && !table.has_unconfirmed(&entity)
            && let Some(watch) = table.watched.get_mut(&entity)
        {
            watch.is_answered = true;
            watch.answered_at.get_or_insert_with(Instant::now);
        }
        drop(table);
        self.asked.notify_one();
        self.answered.notify_one();
        let is_back = shown.away_seconds.is_some() && age.is_none();
        (is_new && !was_there) || has_missed || is_back
    }

    /// Records that these resources were queried for their capabilities on this connection. Resources that were
    /// available on earlier connections, and that are now neither queried nor probed, have to be pinged. Events wait
    /// for the answers to the queries, the probes and the pings.
    pub fn await_answers(&self, resources: &[Jid]) {
        let mut table = self.table();
        for jid in resources {
            table.before_of(jid).for_each(|before| before.is_asked = true);
        }
        table.queue_pings();
        drop(table);
        self.ping_queued.notify_one();
    }

    /// Waits for a resource that has to be pinged.
    pub async fn unconfirmed(&self) -> Jid {
        loop {
            {
                let mut table = self.table();
                while table.is_connected
                    && let Some(jid) = table.unconfirmed.pop_front()
                {
                    if table.before_of(&jid).any(|before| before.is_asked) {
                        return jid;
                    }
                }
            }
            self.ping_queued.notified().await;
        }
    }

    /// Records that a resource answered a query, so its presence state is the same as on the earlier connection.
    /// Returns `true` if the resource may have missed events. Events still wait for the answer to a probe, which may
    /// change the state of the resource.
    pub(in crate::service) fn confirm(&self, jid: &Jid) -> bool {
        let mut table = self.table();
        let (entity, resource) = parts(jid);
        table.note_activity(&entity);
        let Some(before) = table.take_before(&entity, &resource) else { return false };
        let is_placed = table.add_resource(&entity, &resource, before.show).is_some();
        if is_placed && table.is_unanswered(&entity) {
            let (is_asked, has_missed, is_denied) = (false, false, false);
            let is_unreachable = false;
            let confirmed =
                PreviousResource { is_asked, has_missed, is_denied, is_unreachable, ..before };
            table.before.entry(entity).or_default().insert(resource, confirmed);
        }
        drop(table);
        self.asked.notify_one();
        self.answered.notify_one();
        is_placed && before.has_missed
    }

    /// Records that a queried resource is absent, or that the answer to the query is the same as for an absent
    /// resource.
    pub fn deny(&self, jid: &Jid) {
        for before in self.table().before_of(jid) {
            (before.is_asked, before.is_denied, before.is_unreachable) = (false, true, false);
        }
        self.answered.notify_one();
    }

    /// Records an answer that says nothing about the availability of the resource.
    pub fn leave_open(&self, jid: &Jid) {
        self.table().before_of(jid).for_each(|before| before.is_asked = false);
        self.answered.notify_one();
    }

    /// Records that a query failed because the server of a resource is unreachable. The resource is queried again
    /// later.
    pub fn query_failed(&self, jid: &Jid) {
        self.table().fail_query(jid);
        self.failed.notify_one();
        self.answered.notify_one();
    }

    /// Returns `true` if a resource is available; for a bare JID, if one of its resources is.
    pub(in crate::service) fn is_available(&self, jid: &Jid) -> bool {
        let (entity, resource) = parts(jid);
        let table = self.table();
        let resources = table.available.get(&entity);
        resources.is_some_and(|all| jid.is_bare() || all.contains_key(&resource))
    }

    /// Records that a resource is unavailable; with a bare JID, all resources of the entity.
    pub(in crate::service) fn remove(&self, jid: &Jid) -> UnavailablePresence {
        let mut table = self.table();
        let (entity, resource) = parts(jid);
        table.note_activity(&entity);
        let watch = table.watched.get_mut(&entity);
        // An entity that was not asked yet may have any number of other available resources.
        let is_open = !jid.is_bare()
            && watch.as_ref().is_some_and(|watch| watch.is_new && watch.asked_at.is_none());
        if let Some(watch) = watch {
            watch.is_new = is_open;
        }
        let none_is_known = match jid.is_bare() {
            true => {
                table.before.remove(&entity);
                table.answer(&entity);
                true
            }
            false => {
                let was_there = table.take_before(&entity, &resource).is_some();
                // If the presence of an entity is unknown, some resources may be available.
                table.available.get_mut(&entity).map_or(was_there, |resources| {
                    resources.remove(&resource);
                    resources.is_empty()
                })
            }
        };
        if none_is_known && table.available.remove(&entity).is_some() {
            table.available_quota.release(entity.domain().as_str());
        }
        // Resources of an earlier connection may still be available, and others until a probe is answered.
        let is_last = none_is_known
            && !is_open
            && !table.has_unconfirmed(&entity)
            && !table.is_probe_awaited(&entity);
        if none_is_known && !is_last && !is_open {
            table.ask_again(&entity);
        }
        drop(table);
        self.asked.notify_one();
        self.answered.notify_one();
        UnavailablePresence { jid: jid.clone(), is_last }
    }

    /// Returns the availability of a JID for an event. `shows` has the presence states in which the pubsub subscription
    /// of the JID asks for events. A bare JID is available if one of its resources is in one of these states. If the
    /// presence of a subscriber is unknown, the function requests it.
    #[must_use]
    pub fn availability(&self, jid: &Jid, shows: ShowSet, is_subscriber: bool) -> Availability {
        let (entity, resource) = parts(jid);
        let mut table = self.table();
        let resources = table.available.get(&entity);
        let is_wanted = |resources: &BTreeMap<String, Show>| match jid.is_bare() {
            true => resources.values().any(|show| shows.has(*show)),
            false => resources.get(&resource).is_some_and(|show| shows.has(*show)),
        };
        if resources.is_some_and(is_wanted) {
            return Availability::Available;
        }
        let is_known = resources.is_some();
        if is_subscriber {
            drop(table);
            self.request(&entity, None);
            table = self.table();
        }
        if table.is_awaited(jid) {
            drop(table);
            self.ask_first(&entity);
            return Availability::Unknown;
        }
        let is_assumed = table.may_be_available(jid, shows);
        if !is_assumed || table.is_unreachable(jid) {
            table.before_of(jid).for_each(|before| before.has_missed = true);
            table.note_missed(&entity);
        }
        drop(table);
        if is_assumed {
            return Availability::Assumed;
        }
        let reason = if is_known { "unavailable" } else { "unknown" };
        self.withheld.get_or_create(&[("reason", reason)]).inc();
        Availability::Unavailable
    }

    /// Returns `true` if neither the presence of a resource nor an answer about its entity arrived since the process
    /// started. It is then unknown if a resource that was available in an earlier process is still available.
    #[must_use]
    pub fn is_unheard(&self, jid: &Jid) -> bool {
        let (entity, resource) = parts(jid);
        let mut table = self.table();
        let is_there = table.available.get(&entity).is_some_and(|all| all.contains_key(&resource));
        let is_answered = table.watched.get(&entity).is_some_and(|watch| watch.is_answered);
        !is_there && !is_answered && table.before_of(jid).next().is_none()
    }

    /// Returns `true` in the first 10 s of a connection, and before the first connection: events then wait for
    /// presence.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.table().answers_until.is_none_or(|until| Instant::now() < until)
    }

    /// Waits until presence arrives, or until waiting events have to be checked again.
    pub async fn answers(&self) {
        let now = Instant::now();
        let until = self.table().answers_until.unwrap_or(now).min(now + RECHECK_INTERVAL);
        // In either case the waiting events are checked again.
        let _ = timeout_at(until, self.answered.notified()).await;
    }

    /// Handles the start of a connection: all presence becomes unknown, and the presence of watched entities is queued
    /// to be requested again. Events wait for the presence of entities that share it.
    pub fn connected(&self) {
        let mut table = self.table();
        let now = Instant::now();
        let is_first = table.answers_until.is_none();
        table.is_connected = true;
        table.answers_until = Some(now + PROBE_TIMEOUT);
        table.keep_before(now);
        table.available_quota.clear();
        table.probed.clear();
        table.forget_released();
        let PresenceTable { requests, watched, broken_at, .. } = &mut *table;
        for watch in watched.values_mut() {
            let was_cut_off = watch.was_cut_off(*broken_at);
            watch.is_new &= was_cut_off;
            watch.is_awaited = watch.is_given || (watch.is_awaited && was_cut_off);
            watch.is_doubtful |= watch.is_asked;
            (watch.is_asked, watch.asked_at) = (false, None);
            (watch.unanswered, watch.is_probed) = (None, false);
            (watch.is_answered, watch.answered_at) = (false, None);
            watch.began = None;
            watch.has_failed = false;
        }
        // Before the first connection nothing was requested, and entities with pending events come first.
        if !is_first {
            // Events may wait for available entities.
            requests.clear();
            for is_awaited in [true, false] {
                let some = watched.iter().filter(|(_, watch)| watch.is_awaited == is_awaited);
                some.for_each(|(entity, watch)| requests.push(entity, &watch.share, false));
            }
        }
        drop(table);
        self.asked.notify_one();
        self.failed.notify_one();
    }

    /// Records that the connection broke.
    pub fn disconnected(&self) {
        let mut table = self.table();
        table.broken_at = Some(Instant::now());
        table.is_connected = false;
    }

    /// Records that an entity shares its presence and is probed.
    pub fn on_subscribed(&self, jid: &Jid) {
        let (mut table, entity) = (self.table(), jid.to_bare());
        if let Some(watch) = table.watched.get_mut(&entity) {
            watch.is_given = true;
            table.probe(entity);
        }
        drop(table);
        self.asked.notify_one();
        self.probed.notify_one();
    }

    /// Records that the presence of an entity cannot be known now, for example while its server is unreachable. The
    /// presence is requested again later.
    pub fn cannot_know(&self, jid: &Jid) {
        let (mut table, entity) = (self.table(), jid.to_bare());
        if let Some(watch) = table.watched.get_mut(&entity) {
            watch.unanswered = None;
        }
        table.fail(&entity);
        drop(table);
        self.failed.notify_one();
        self.answered.notify_one();
    }

    /// Returns `true` if there may be failed requests that are repeated once a stanza from their domain arrives.
    pub fn has_outages(&self) -> bool {
        self.table().requests.outages.is_any()
    }

    /// Records that a stanza from an entity arrived, so its domain is reachable. Failed requests and queries to the
    /// domain are repeated. Not called for an error that says that the server is unreachable.
    pub fn reach(&self, jid: &Jid) {
        self.table().reach(jid.domain().as_str());
        self.asked.notify_one();
        self.ping_queued.notify_one();
    }

    /// Waits until the retry interval of an unreachable domain is over. Then queues a new request for the presence of
    /// one of its entities, or a new query to one of its resources. Returns the domain.
    pub async fn next_attempt(&self) -> String {
        loop {
            let next = {
                let mut table = self.table();
                if table.is_connected { table.try_again() } else { Err(None) }
            };
            match next {
                Ok(domain) => {
                    self.asked.notify_one();
                    self.ping_queued.notify_one();
                    return domain;
                }
                Err(Some(at)) => drop(timeout_at(at, self.failed.notified()).await),
                Err(None) => self.failed.notified().await,
            }
        }
    }

    /// Waits for an entity that sent nothing for 30 s after a probe.
    pub async fn silent(&self) -> BareJid {
        loop {
            let next = self.table().next_silent(Instant::now());
            match next {
                Ok(entity) => return entity,
                Err(Some(at)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.probed.notified() => {}
                },
                Err(None) => self.probed.notified().await,
            }
        }
    }

    /// Records a ping to an entity that has not answered a probe. If the ping is not answered, the entity is probed
    /// again later.
    pub fn ping(&self, entity: &BareJid, number: u64) {
        let mut table = self.table();
        if let Some(watch) = table.watched.get_mut(entity)
            && let Some(probe) = &mut watch.unanswered
        {
            probe.ping = Some(number);
            table.fail(entity);
        }
        drop(table);
        self.failed.notify_one();
    }

    /// Handles the answer to the ping with this number ([`ping`](Self::ping)). If the entity has sent nothing else
    /// since its probe, all its resources count as unavailable, and the function returns their unavailable presence.
    pub(in crate::service) fn give_up(
        &self,
        entity: &BareJid,
        number: u64,
    ) -> Option<UnavailablePresence> {
        let mut table = self.table();
        let watch = table.watched.get_mut(entity)?;
        watch.unanswered.take_if(|probe| probe.ping == Some(number))?;
        if table.available.contains_key(entity) {
            return None;
        }
        table.before.remove(entity);
        table.answer(entity);
        drop(table);
        self.answered.notify_one();
        Some(UnavailablePresence { jid: entity.clone().into(), is_last: true })
    }

    /// Returns `true` if an entity is watched.
    pub(in crate::service) fn is_watched(&self, entity: &BareJid) -> bool {
        self.table().watched.contains_key(entity)
    }

    /// Records that a watched entity refuses to share its presence, or stops sharing it. The presence is requested
    /// again only after the entity has made a pubsub request that needs it. The refusal is stored only if a node needs
    /// the presence now.
    pub(in crate::service) fn refuse(&self, entity: &BareJid, is_needed: bool) {
        let mut table = self.table();
        if table.watched.contains_key(entity) {
            table.reset(entity);
            if table.refusal_quota.try_acquire(entity.domain().as_str()) {
                table.refused.insert(entity.clone());
                if is_needed {
                    table.unwritten_refusals.insert(entity.clone(), true);
                }
            }
            drop(table);
            self.refused.notify_one();
            self.answered.notify_one();
        }
    }

    /// Returns `true` if an entity refused to share its presence and has since made no pubsub request that needs it.
    pub(in crate::service) fn has_refused(&self, entity: &BareJid) -> bool {
        self.table().refused.contains(entity)
    }

    /// Removes the earlier refusal of an entity that now makes a pubsub request which needs its presence. The entity
    /// may have missed events meanwhile.
    pub(in crate::service) fn forgive(&self, entity: &BareJid) {
        let is_forgiven = self.table().forget_refusal(entity);
        if is_forgiven {
            self.refused.notify_one();
            self.request(entity, None);
            self.table().note_missed(entity);
        }
    }

    /// Ends the watch of an erased entity, and forgets an earlier refusal of its presence.
    pub(in crate::service) fn forget(&self, entity: &BareJid) {
        let mut table = self.table();
        table.reset(entity);
        table.forget_refusal(entity);
        drop(table);
        self.refused.notify_one();
        self.answered.notify_one();
    }

    /// Adds the refusals from the store at the start.
    pub(in crate::service) fn load_refusals(&self, entities: Vec<BareJid>) {
        let mut table = self.table();
        for entity in entities {
            table.refusal_quota.acquire_over_quota(entity.domain().as_str());
            table.refused.insert(entity);
        }
    }

    /// Waits for changed refusals that are not stored yet, and returns a batch of them: `true` if the entity refuses,
    /// `false` if it no longer does.
    pub(in crate::service) async fn changed_refusals(&self) -> Vec<(BareJid, bool)> {
        loop {
            let changed = self.unwritten_refusals();
            if !changed.is_empty() {
                return changed;
            }
            self.refused.notified().await;
        }
    }

    /// Returns a batch of changed refusals that are not stored yet.
    pub(in crate::service) fn unwritten_refusals(&self) -> Vec<(BareJid, bool)> {
        let table = self.table();
        let first = table.unwritten_refusals.iter().take(MAX_REFUSALS_WRITTEN);
        first.map(|(entity, refuses)| (entity.clone(), *refuses)).collect()
    }

    /// Records that these refusals are stored.
    pub(in crate::service) fn wrote_refusals(&self, written: &[(BareJid, bool)]) {
        let unwritten = &mut self.table().unwritten_refusals;
        for (entity, refuses) in written {
            if unwritten.get(entity) == Some(refuses) {
                unwritten.remove(entity);
            }
        }
    }

    /// Returns `true` if an entity shares its presence. If so, presence from its bare JID applies to all of its
    /// resources.
    #[must_use]
    pub fn is_given(&self, jid: &Jid) -> bool {
        self.table().watched.get(&jid.to_bare()).is_some_and(|watch| watch.is_given)
    }

    /// Waits for the next presence request.
    pub(in crate::service) async fn next_request(&self) -> PresenceRequest {
        loop {
            {
                let mut table = self.table();
                while table.is_connected
                    && let Some(entity) = table.requests.pop()
                {
                    if let Some(watch) = table.watched.get_mut(&entity)
                        && !watch.is_asked
                    {
                        (watch.is_asked, watch.has_failed) = (true, false);
                        watch.asked_at = Some(Instant::now());
                        let (is_probe, is_doubtful) = (watch.is_given, watch.is_doubtful);
                        if is_probe {
                            table.probe(entity.clone());
                            self.probed.notify_one();
                        }
                        return PresenceRequest { entity, is_probe, is_doubtful };
                    }
                }
            }
            self.asked.notified().await;
        }
    }

    /// Records that no node was found to need the presence of an entity, so only pending events may need it. Returns
    /// `true` if the presence is requested all the same: the entity shares its presence, so a probe does not disturb
    /// it, or a node or an event has asked for the presence meanwhile. Otherwise the watch ends until an event needs
    /// the presence.
    pub(in crate::service) fn release(&self, entity: &BareJid) -> bool {
        let mut table = self.table();
        let Some(watch) = table.watched.get_mut(entity) else { return false };
        if watch.is_given || !watch.is_doubtful {
            watch.is_released = watch.is_doubtful;
            return true;
        }
        table.reset(entity);
        drop(table);
        self.answered.notify_one();
        false
    }

    /// Watches an entity. `creator` is the account that created the node that needs its presence, if known.
    fn request(&self, entity: &BareJid, creator: Option<&AccountKey>) {
        let mut table = self.table();
        let PresenceTable { watched, requests, refused, .. } = &mut *table;
        if let Some(watch) = watched.get_mut(entity) {
            watch.is_doubtful = false;
            if let Some(creator) = creator {
                watch.is_released = false;
                requests.reassign(entity, &mut watch.share, creator);
            }
            return;
        }
        if refused.contains(entity) {
            return;
        }
        let domain = entity.domain().as_str();
        if !table.watched_quota.try_acquire(domain) {
            table.evict_unshared();
            if !table.watched_quota.try_acquire(domain) {
                return;
            }
        }
        let share = table.requests.join(creator);
        table.requests.push(entity, &share, false);
        // Events that were withheld from an entity without a watch are not recorded.
        let is_first = table.unread.is_empty() && table.evicted_at.is_none();
        let began = is_first.then(Instant::now);
        let watch = Watch { share, began, is_awaited: true, is_new: true, ..Watch::default() };
        table.watched.insert(entity.clone(), watch);
        drop(table);
        self.asked.notify_one();
    }

    /// Moves the request for the presence of an entity before other requests, because an event waits for it.
    fn ask_first(&self, entity: &BareJid) {
        let mut table = self.table();
        let PresenceTable { watched, requests, .. } = &mut *table;
        if let Some(watch) = watched.get(entity).filter(|watch| !watch.is_asked) {
            requests.push(entity, &watch.share, true);
        }
    }

    fn table(&self) -> MutexGuard<'_, PresenceTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PresenceTable {
    /// Returns `true` if events for a JID wait for presence or for the answer to a capability query.
    fn is_awaited(&mut self, jid: &Jid) -> bool {
        self.is_waiting_time()
            && !self.is_current(jid)
            && (self.watched.get(&jid.to_bare()).is_some_and(Watch::is_awaited)
                || self.before_of(jid).any(|before| before.is_asked))
    }

    /// Returns `true` if a JID counts as available while its presence may still arrive. This is the case if the JID was
    /// available in one of the states `shows` before the interruption, or if nothing is known about it. In doubt the
    /// event is sent, because servers drop superfluous headlines, and an event that is not sent is lost.
    fn may_be_available(&mut self, jid: &Jid, shows: ShowSet) -> bool {
        let (entity, resource) = parts(jid);
        let watch = self.watched.get(&entity);
        let is_given = watch.is_some_and(|watch| watch.is_given);
        let is_open = watch.is_some_and(Watch::is_open);
        let is_new = is_open && watch.is_some_and(|watch| watch.is_new);
        let is_there = |all: &BTreeMap<_, _>| jid.is_bare() || all.contains_key(&resource);
        let is_known = self.available.get(&entity).is_some_and(is_there);
        let was_there = |before: &mut PreviousResource| {
            let is_unknown = if is_given { is_open } else { before.is_unreachable };
            is_unknown && !before.is_denied && shows.has(before.show)
        };
        (is_new && !is_known) || self.before_of(jid).any(was_there)
    }

    /// Returns `true` in the first 10 s of a connection, and before the first connection: events then wait for
    /// presence.
    fn is_waiting_time(&self) -> bool {
        self.answers_until.is_none_or(|until| Instant::now() < until)
    }

    /// Returns `true` if the presence of a resource arrived on this connection, so events need not wait for answers to
    /// queries.
    fn is_current(&self, jid: &Jid) -> bool {
        let (entity, resource) = parts(jid);
        let is_there = |all: &BTreeMap<_, _>| all.contains_key(&resource);
        !jid.is_bare()
            && self.available.get(&entity).is_some_and(is_there)
            && !self.before.get(&entity).is_some_and(|all| all.contains_key(&resource))
    }

    /// Returns `true` if an entity shares its presence, and the server has not answered a probe on this connection.
    fn is_unanswered(&self, entity: &BareJid) -> bool {
        self.watched.get(entity).is_some_and(|watch| watch.is_given && !watch.is_answered)
    }

    /// Returns `true` if events wait for the answer to the probe of an entity.
    fn is_probe_awaited(&self, entity: &BareJid) -> bool {
        let watch = self.watched.get(entity);
        self.is_waiting_time() && watch.is_some_and(|watch| watch.is_given && watch.is_awaited())
    }

    /// Records that the presence of an entity is known.
    fn answer(&mut self, entity: &BareJid) {
        if let Some(watch) = self.watched.get_mut(entity) {
            (watch.is_awaited, watch.is_answered) = (false, true);
            watch.is_new = false;
        }
    }

    /// Queues a new request for the presence of an entity, before other requests.
    fn ask_again(&mut self, entity: &BareJid) {
        if let Some(watch) = self.watched.get_mut(entity) {
            watch.is_asked = false;
            self.requests.push(entity, &watch.share, true);
        }
    }

    /// Returns `true` if presence that was sent `age` ago was sent before the watch of the entity began.
    fn was_there(&self, entity: &BareJid, age: Duration) -> bool {
        let began = self.watched.get(entity).and_then(|watch| watch.began);
        began.is_some_and(|began| is_from_before(age, began))
    }

    /// Records that an entity may have missed an event.
    fn note_missed(&mut self, entity: &BareJid) {
        if let Some(watch) = self.watched.get_mut(entity) {
            watch.began = None;
        }
    }

    /// Records that an entity sent something.
    fn note_activity(&mut self, entity: &BareJid) {
        if let Some(watch) = self.watched.get_mut(entity) {
            watch.unanswered = None;
        }
    }

    /// Records a probe of an entity.
    fn probe(&mut self, entity: BareJid) {
        let at = Instant::now();
        if let Some(watch) = self.watched.get_mut(&entity) {
            (watch.asked_at, watch.has_failed) = (Some(at), false);
            watch.unanswered = Some(Probe { at, ping: None });
            if !watch.is_probed && self.probed.len() < MAX_ENTITIES {
                watch.is_probed = true;
                self.probed.push_back((at, entity));
            }
        }
    }

    /// Returns the next entity that sent nothing for 30 s after its probe. Otherwise returns as the error the time at
    /// which the next probe will be 30 s old, or `Err(None)` if there is no probe.
    fn next_silent(&mut self, now: Instant) -> Result<BareJid, Option<Instant>> {
        while let Some((at, _)) = self.probed.front() {
            if *at + SILENCE_TIMEOUT > now {
                return Err(Some(*at + SILENCE_TIMEOUT));
            }
            let Some((_, entity)) = self.probed.pop_front() else { break };
            let Some(watch) = self.watched.get_mut(&entity) else { continue };
            watch.is_probed = false;
            match watch.unanswered {
                Some(Probe { at, .. }) if at + SILENCE_TIMEOUT <= now => return Ok(entity),
                Some(Probe { at, .. }) => {
                    watch.is_probed = true;
                    self.probed.push_back((at, entity));
                }
                None => {}
            }
        }
        Err(None)
    }

    /// Adds an available resource. Returns `Some(true)` if the resource is new, `Some(false)` if it was available
    /// before, and `None` at the limit.
    fn add_resource(&mut self, entity: &BareJid, resource: &str, show: Show) -> Option<bool> {
        let is_wanted = self.watched.contains_key(entity);
        let is_one_more = !self.available.contains_key(entity);
        let domain = entity.domain().as_str();
        if is_one_more && is_wanted {
            self.available_quota.acquire_over_quota(domain);
        } else if is_one_more && !self.available_quota.try_acquire(domain) {
            return None;
        }
        let max = if is_wanted { MAX_RESOURCES } else { MAX_UNWANTED };
        let resources = self.available.entry(entity.clone()).or_default();
        if resources.len() >= max && !resources.contains_key(resource) {
            return None;
        }
        Some(resources.insert(resource.to_owned(), show).is_none())
    }

    /// Ends the watch of an entity, and removes its queued presence request.
    fn reset(&mut self, entity: &BareJid) {
        if let Some(watch) = self.watched.remove(entity) {
            self.requests.leave(&watch.share);
            self.requests.remove(entity);
            self.watched_quota.release(entity.domain().as_str());
            self.publishers.remove(entity);
        }
    }

    /// Removes the refusal of an entity. Returns `true` if there was one.
    fn forget_refusal(&mut self, entity: &BareJid) -> bool {
        let has_refused = self.refused.remove(entity);
        if has_refused {
            self.refusal_quota.release(entity.domain().as_str());
            self.unwritten_refusals.insert(entity.clone(), false);
        }
        has_refused
    }

    /// Ends watches that were kept only for events of the previous connection.
    fn forget_released(&mut self) {
        let released = self.watched.iter().filter(|(_, watch)| watch.is_released);
        let released: Vec<_> = released.map(|(entity, _)| entity.clone()).collect();
        released.iter().for_each(|entity| self.reset(entity));
    }

    /// Evicts watched entities that do not share their presence and are not available, at most once a minute. They are
    /// watched again when a node or an event needs their presence.
    fn evict_unshared(&mut self) {
        if self.evicted_at.is_some_and(|before| before.elapsed() < EVICTION_INTERVAL) {
            return;
        }
        self.evicted_at = Some(Instant::now());
        let Self { watched, requests, available, watched_quota, publishers, .. } = self;
        watched.retain(|entity, watch| {
            let stays = !watch.is_released && (watch.is_given || available.contains_key(entity));
            if !stays {
                requests.leave(&watch.share);
                requests.remove(entity);
                watched_quota.release(entity.domain().as_str());
                publishers.remove(entity);
            }
            stays
        });
    }
}

fn parts(jid: &Jid) -> (BareJid, String) {
    (jid.to_bare(), jid.resource().map(|resource| resource.as_str().to_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
