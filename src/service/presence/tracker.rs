//! Who is available, as far as it is known on this connection, and of whom it should be.

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

/// Entities whose presence is known, or asked for. That of more is not looked at.
const MAX_ENTITIES: usize = 200_000;
/// Entities whose refusal is remembered.
const MAX_REFUSALS: usize = 100_000;
/// Changes of these that are written at once.
const MAX_REFUSALS_WRITTEN: usize = 500;
/// The time between two attempts to make room.
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);
/// Nodes of one entity at which something goes when it goes.
const MAX_PUBLISHED_AT: usize = 1000;
/// Resources of one entity.
const MAX_RESOURCES: usize = 32;
/// Those of an entity whose presence nobody asked for.
const MAX_UNWANTED: usize = 8;
/// How long after a connection began events wait for the presence of their recipients.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for an entity to grant its presence. Servers grant at once what was granted before.
const GRANT_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout for the answer to a probe when events no longer wait. Until then, and until it is requested, the presence of
/// an entity counts as before the interruption, and as available if nothing is known of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without any stanza of an entity after a probe before it is pinged.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which waiting entries are checked again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long events wait for further resources after the first answer to a probe. Servers answer for all resources
/// together.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// The presence of entities, and at which nodes it matters.
#[derive(Debug, Default)]
pub struct PresenceTracker {
    /// Notifications that were not sent because of presence.
    withheld: Withheld,
    known: Mutex<PresenceTable>,
    asked: Notify,
    answered: Notify,
    probed: Notify,
    refused: Notify,
    failed: Notify,
    ping_queued: Notify,
}

/// Notifications that were not sent because of presence, by the reason.
pub(in crate::service) type Withheld = Family<[(&'static str, &'static str); 1], Counter>;

/// How the service asks for somebody's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRequest {
    /// Whose.
    pub entity: BareJid,
    /// Whether it let the service have it before, so that its server is asked for it; else it is asked for leave.
    pub is_probe: bool,
    /// The request repeats an earlier one, so the presence may no longer be needed.
    pub is_doubtful: bool,
}

/// Whether an event that depends on presence is sent to a JID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It is.
    Available,
    /// The event is sent as a headline: the JID may be unavailable, because its presence has not arrived yet.
    Assumed,
    /// It is not: no resource is available in a state in which it is wanted, as far as is known.
    Unavailable,
    /// Not yet: its presence was asked for on this connection, and is not here.
    Unknown,
}

/// Presence as received from a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceUpdate {
    /// Availability state.
    pub show: Show,
    /// Seconds of absence, if the resource states them (XEP-0312).
    pub away_seconds: Option<u64>,
    /// Time of sending, if the server states it (XEP-0203), as in answers to probes.
    pub stamp: Option<Timestamp>,
}

#[derive(Debug)]
struct PresenceTable {
    /// The nodes at which somebody's presence matters, or did.
    nodes: HashSet<NodeId>,
    /// Nodes from before the start whose subscribers are not watched yet.
    unread: HashSet<NodeId>,
    available: HashMap<BareJid, BTreeMap<String, Show>>,
    /// Resources that were available on earlier connections and have not sent anything since.
    before: HashMap<BareJid, BTreeMap<String, PreviousResource>>,
    /// Resources of earlier connections that have to be pinged on this connection.
    unconfirmed: VecDeque<Jid>,
    /// Those who have to be asked, and those who were or will be.
    requests: Requests,
    wanted: HashMap<BareJid, Watch>,
    /// Entities probed on this connection, with the time.
    probed: VecDeque<(Instant, BareJid)>,
    /// Those who refused.
    refused: HashSet<BareJid>,
    /// Whose refusal the store does not have yet, or still has.
    unwritten_refusals: BTreeMap<BareJid, bool>,
    /// Where some of them published what goes when they go.
    publishers: HashMap<BareJid, BTreeSet<NodeId>>,
    is_connected: bool,
    /// When room was made.
    dropped: Option<Instant>,
    /// Until when events wait for presence on this connection; nothing before the first one.
    answers_until: Option<Instant>,
    /// When the last connection broke.
    broken_at: Option<Instant>,
    /// The places of those who are there, of those who are wanted, and of those who refused.
    places: DomainQuota,
    wanted_places: DomainQuota,
    refused_places: DomainQuota,
}

/// What is known of an entity whose presence is wanted.
#[derive(Clone, Debug, Default)]
struct Watch {
    /// In whose turn it is asked.
    share: Share,
    /// Start of the watch, if it began on this connection and the entity has missed no event. Earlier presence does not
    /// count as coming online.
    began: Option<Instant>,
    /// Whether it lets the service have it.
    is_given: bool,
    is_asked: bool,
    /// Time of the last presence request or probe.
    asked_at: Option<Instant>,
    /// Whether it may not be needed any more.
    is_doubtful: bool,
    /// Whether only pending events can need it. Then it ends with the connection.
    is_released: bool,
    /// The last request had no answer, or an error that says nothing about the entity.
    has_failed: bool,
    /// Whether events wait for the answer.
    is_awaited: bool,
    /// The presence of the entity was never received, not even on earlier connections.
    is_new: bool,
    /// Whether it arrived on this connection.
    is_answered: bool,
    /// When the first resource answered a probe on this connection.
    answered_at: Option<Instant>,
    /// The last probe, until the entity sends something.
    unanswered: Option<Probe>,
    /// Whether it is in the list of probed entities.
    is_probed: bool,
}

/// An unanswered probe.
#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    /// Number of the ping that followed.
    ping: Option<u64>,
}

impl Watch {
    /// Returns `true` if the connection broke before the time for answers was over. Then events wait on the next
    /// connection too.
    fn was_cut_off(&self, broken_at: Option<Instant>) -> bool {
        let timeout = if self.is_given { ANSWER_TIMEOUT } else { GRANT_TIMEOUT };
        let is_before = |at: Instant| broken_at.is_some_and(|broken| broken < at + timeout);
        !self.is_answered && self.asked_at.is_none_or(is_before)
    }

    /// Returns `true` if events still wait for the answer. An entity that has not granted its presence is waited for only
    /// briefly, and one whose server cannot be reached is not.
    fn is_awaited(&self) -> bool {
        !self.has_failed && self.may_arrive(GRANT_TIMEOUT)
    }

    /// Returns `true` if the presence was not requested yet, or the answer is not late. After an error the request may be
    /// repeated in time.
    fn is_open(&self) -> bool {
        let grant_timeout = if self.has_failed { ANSWER_TIMEOUT } else { GRANT_TIMEOUT };
        let is_late = |at: Instant| at.elapsed() >= ANSWER_TIMEOUT;
        self.may_arrive(grant_timeout) && !self.asked_at.is_some_and(is_late)
    }

    /// Returns `true` if the presence may still arrive. An entity that has not granted its presence has this timeout.
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
            available: HashMap::new(),
            before: HashMap::new(),
            unconfirmed: VecDeque::new(),
            requests: Requests::default(),
            wanted: HashMap::new(),
            probed: VecDeque::new(),
            refused: HashSet::new(),
            unwritten_refusals: BTreeMap::new(),
            publishers: HashMap::new(),
            is_connected: false,
            dropped: None,
            answers_until: None,
            broken_at: None,
            places: DomainQuota::new(MAX_ENTITIES),
            wanted_places: DomainQuota::new(MAX_ENTITIES),
            refused_places: DomainQuota::new(MAX_REFUSALS),
        }
    }
}

impl PresenceTracker {
    /// Nobody is known, and what is withheld is counted.
    pub(in crate::service) fn counting(withheld: Withheld) -> Self {
        Self { withheld, ..Self::default() }
    }

    /// How many entities are available.
    pub(in crate::service) fn len(&self) -> usize {
        self.known().available.len()
    }

    /// When the service begins: presence may matter at this node; whose is read soon.
    pub(in crate::service) fn begin_at(&self, node: &NodeId) {
        let mut known = self.known();
        known.nodes.insert(node.clone());
        known.unread.insert(node.clone());
    }

    /// Records that the subscribers of a node are watched, or that the node is closed.
    pub(in crate::service) fn note_read(&self, node: &NodeId) {
        self.known().unread.remove(node);
    }

    /// Makes pending notifications from before the start wait for the presence of these entities.
    pub(in crate::service) fn expect_all(&self, entities: impl Iterator<Item = BareJid>) {
        for entity in entities {
            self.request(&entity, None);
            self.ask_first(&entity);
        }
    }

    /// The presence of these entities matters at a node of this creator's account, if the node is known.
    pub(in crate::service) fn watch(
        &self,
        node: &NodeId,
        creator: Option<&AccountKey>,
        entities: impl Iterator<Item = BareJid>,
    ) {
        for entity in entities {
            self.known().nodes.insert(node.clone());
            self.request(&entity, creator);
        }
    }

    /// What an entity published at a node goes when it goes.
    pub(in crate::service) fn publishes(&self, node: &NodeId, entity: BareJid) {
        let mut known = self.known();
        if known.wanted.contains_key(&entity) {
            let nodes = known.publishers.entry(entity).or_default();
            if nodes.len() < MAX_PUBLISHED_AT {
                nodes.insert(node.clone());
            }
        }
    }

    /// The nodes at which it did.
    pub(in crate::service) fn published_at(&self, entity: &BareJid) -> BTreeSet<NodeId> {
        self.known().publishers.remove(entity).unwrap_or_default()
    }

    /// Returns `true` if there is one of them.
    pub(in crate::service) fn is_publisher(&self, entity: &BareJid) -> bool {
        let known = self.known();
        let nodes = known.publishers.get(entity);
        nodes.is_some_and(|nodes| nodes.iter().any(|node| known.nodes.contains(node)))
    }

    /// A node is not there any more.
    pub(in crate::service) fn unwatch(&self, node: &NodeId) {
        let mut known = self.known();
        known.nodes.remove(node);
        known.unread.remove(node);
    }

    /// Returns `true` if somebody's presence matters at a node.
    pub(in crate::service) fn matters(&self, node: &NodeId) -> bool {
        self.known().nodes.contains(node)
    }

    /// Records that a resource is available; `age` is the age of its presence, if known. Returns whether it counts as
    /// coming online. After an interruption only presence sent before it proves that the resource was available
    /// throughout, and after a subscription that needs it only presence sent before that: a repeated last item is
    /// harmless, a missing one is not.
    pub(in crate::service) fn note(
        &self,
        jid: &Jid,
        shown: &PresenceUpdate,
        age: Option<Duration>,
    ) -> bool {
        let mut known = self.known();
        let (entity, resource) = parts(jid);
        known.note_activity(&entity);
        let Some(is_new) = known.place(&entity, &resource, shown.show) else { return false };
        let before = known.take_before(&entity, &resource);
        let has_missed = before.is_some_and(|before| before.has_missed);
        let was_there = age.is_some_and(|age| match before {
            Some(before) => before.was_there(age),
            None => shown.away_seconds.is_none() && known.was_there(&entity, age),
        });
        // Presence without a timestamp is no answer to a probe, and says nothing about other resources.
        if age.is_some()
            && !known.has_unconfirmed(&entity)
            && let Some(watch) = known.wanted.get_mut(&entity)
        {
            watch.is_answered = true;
            watch.answered_at.get_or_insert_with(Instant::now);
        }
        drop(known);
        self.asked.notify_one();
        self.answered.notify_one();
        let is_back = shown.away_seconds.is_some() && age.is_none();
        (is_new && !was_there) || has_missed || is_back
    }

    /// Records capability queries on this connection. Resources that were available before and are neither queried nor
    /// probed have to be pinged. Events wait for all of them.
    pub fn await_answers(&self, resources: &[Jid]) {
        let mut known = self.known();
        for jid in resources {
            known.before_of(jid).for_each(|before| before.is_asked = true);
        }
        known.queue_pings();
        drop(known);
        self.ping_queued.notify_one();
    }

    /// Makes events wait for a resource that has to be pinged.
    pub async fn unconfirmed(&self) -> Jid {
        loop {
            {
                let mut known = self.known();
                while known.is_connected
                    && let Some(jid) = known.unconfirmed.pop_front()
                {
                    if known.before_of(&jid).any(|before| before.is_asked) {
                        return jid;
                    }
                }
            }
            self.ping_queued.notified().await;
        }
    }

    /// Records that a resource answered a query: it is available as before. Returns whether it may have missed events.
    /// The answer to a probe may still change its state, and is waited for.
    pub(in crate::service) fn confirm(&self, jid: &Jid) -> bool {
        let mut known = self.known();
        let (entity, resource) = parts(jid);
        known.note_activity(&entity);
        let Some(before) = known.take_before(&entity, &resource) else { return false };
        let is_placed = known.place(&entity, &resource, before.show).is_some();
        if is_placed && known.is_unanswered(&entity) {
            let (is_asked, has_missed, is_denied) = (false, false, false);
            let is_unreachable = false;
            let confirmed =
                PreviousResource { is_asked, has_missed, is_denied, is_unreachable, ..before };
            known.before.entry(entity).or_default().insert(resource, confirmed);
        }
        drop(known);
        self.asked.notify_one();
        self.answered.notify_one();
        is_placed && before.has_missed
    }

    /// Records that a queried resource is absent, or that its answer does not distinguish it from an absent one.
    pub fn deny(&self, jid: &Jid) {
        for before in self.known().before_of(jid) {
            (before.is_asked, before.is_denied, before.is_unreachable) = (false, true, false);
        }
        self.answered.notify_one();
    }

    /// Records an answer that says nothing about the availability of the resource.
    pub fn leave_open(&self, jid: &Jid) {
        self.known().before_of(jid).for_each(|before| before.is_asked = false);
        self.answered.notify_one();
    }

    /// Records that a query failed because the server of a resource is unreachable. The resource is queried again later.
    pub fn query_failed(&self, jid: &Jid) {
        self.known().fail_query(jid);
        self.failed.notify_one();
        self.answered.notify_one();
    }

    /// Returns `true` if a resource is available; of a bare JID, whether one of its resources is.
    pub(in crate::service) fn is_available(&self, jid: &Jid) -> bool {
        let (entity, resource) = parts(jid);
        let known = self.known();
        let resources = known.available.get(&entity);
        resources.is_some_and(|all| jid.is_bare() || all.contains_key(&resource))
    }

    /// A resource is not there any more; with a bare JID none is.
    pub(in crate::service) fn remove(&self, jid: &Jid) -> UnavailablePresence {
        let mut known = self.known();
        let (entity, resource) = parts(jid);
        known.note_activity(&entity);
        let watch = known.wanted.get_mut(&entity);
        // Of an entity that was not asked yet, any number of other resources may be available.
        let is_open = !jid.is_bare()
            && watch.as_ref().is_some_and(|watch| watch.is_new && watch.asked_at.is_none());
        if let Some(watch) = watch {
            watch.is_new = is_open;
        }
        let none_is_known = match jid.is_bare() {
            true => {
                known.before.remove(&entity);
                known.answer(&entity);
                true
            }
            false => {
                let was_there = known.take_before(&entity, &resource).is_some();
                // If the presence of an entity is unknown, some resources may be available.
                known.available.get_mut(&entity).map_or(was_there, |resources| {
                    resources.remove(&resource);
                    resources.is_empty()
                })
            }
        };
        if none_is_known && known.available.remove(&entity).is_some() {
            known.places.release(entity.domain().as_str());
        }
        // Resources of an earlier connection may still be available, and others until a probe is answered.
        let is_last = none_is_known
            && !is_open
            && !known.has_unconfirmed(&entity)
            && !known.is_probe_awaited(&entity);
        if none_is_known && !is_last && !is_open {
            known.ask_again(&entity);
        }
        drop(known);
        self.asked.notify_one();
        self.answered.notify_one();
        UnavailablePresence { jid: jid.clone(), is_last }
    }

    /// Whether an event comes to a JID that is sent it only in these states: one of its resources has to be in one. The
    /// presence of a subscriber that is not known is requested.
    #[must_use]
    pub fn availability(&self, jid: &Jid, shows: ShowSet, is_subscriber: bool) -> Availability {
        let (entity, resource) = parts(jid);
        let mut known = self.known();
        let resources = known.available.get(&entity);
        let is_wanted = |resources: &BTreeMap<String, Show>| match jid.is_bare() {
            true => resources.values().any(|show| shows.has(*show)),
            false => resources.get(&resource).is_some_and(|show| shows.has(*show)),
        };
        if resources.is_some_and(is_wanted) {
            return Availability::Available;
        }
        let is_known = resources.is_some();
        if is_subscriber {
            drop(known);
            self.request(&entity, None);
            known = self.known();
        }
        if known.is_awaited(jid) {
            drop(known);
            self.ask_first(&entity);
            return Availability::Unknown;
        }
        let is_assumed = known.may_be_available(jid, shows);
        if !is_assumed || known.is_unreachable(jid) {
            known.before_of(jid).for_each(|before| before.has_missed = true);
            known.note_missed(&entity);
        }
        drop(known);
        if is_assumed {
            return Availability::Assumed;
        }
        let reason = if is_known { "unavailable" } else { "unknown" };
        self.withheld.get_or_create(&[("reason", reason)]).inc();
        Availability::Unavailable
    }

    /// Returns `true` if nothing shows whether a resource that was available in an earlier process is available: neither
    /// its presence nor that of its entity arrived in this process.
    #[must_use]
    pub fn is_unheard(&self, jid: &Jid) -> bool {
        let (entity, resource) = parts(jid);
        let mut known = self.known();
        let is_there = known.available.get(&entity).is_some_and(|all| all.contains_key(&resource));
        let is_answered = known.wanted.get(&entity).is_some_and(|watch| watch.is_answered);
        !is_there && !is_answered && known.before_of(jid).next().is_none()
    }

    /// Returns `true` if events still wait for presence on this connection.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.known().answers_until.is_none_or(|until| Instant::now() < until)
    }

    /// Waits until somebody's presence is here, or events wait for it no more.
    pub async fn answers(&self) {
        let now = Instant::now();
        let until = self.known().answers_until.unwrap_or(now).min(now + RECHECK_INTERVAL);
        // Whichever it was, what waits is looked at again.
        let _ = timeout_at(until, self.answered.notified()).await;
    }

    /// A connection began. Nobody's presence is known on it, and everybody is asked again. Events wait for those who let
    /// the service have it.
    pub fn connected(&self) {
        let mut known = self.known();
        let now = Instant::now();
        let is_first = known.answers_until.is_none();
        known.is_connected = true;
        known.answers_until = Some(now + PROBE_TIMEOUT);
        known.keep_before(now);
        known.places.clear();
        known.probed.clear();
        known.forget_released();
        let PresenceTable { requests, wanted, broken_at, .. } = &mut *known;
        for watch in wanted.values_mut() {
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
        // Before the first connection nobody was asked, and those for whom something is pending come first.
        if !is_first {
            // Those who are available may be waited for.
            requests.clear();
            for is_awaited in [true, false] {
                let some = wanted.iter().filter(|(_, watch)| watch.is_awaited == is_awaited);
                some.for_each(|(entity, watch)| requests.push(entity, &watch.share, false));
            }
        }
        drop(known);
        self.asked.notify_one();
        self.failed.notify_one();
    }

    /// The connection broke.
    pub fn disconnected(&self) {
        let mut known = self.known();
        known.broken_at = Some(Instant::now());
        known.is_connected = false;
    }

    /// Records that an entity shares its presence and is probed.
    pub fn on_subscribed(&self, jid: &Jid) {
        let (mut known, entity) = (self.known(), jid.to_bare());
        if let Some(watch) = known.wanted.get_mut(&entity) {
            watch.is_given = true;
            known.probe(entity);
        }
        drop(known);
        self.asked.notify_one();
        self.probed.notify_one();
    }

    /// Records that an entity's presence cannot be known now, as while its server is unreachable. It is requested again
    /// later.
    pub fn cannot_know(&self, jid: &Jid) {
        let (mut known, entity) = (self.known(), jid.to_bare());
        if let Some(watch) = known.wanted.get_mut(&entity) {
            watch.unanswered = None;
        }
        known.fail(&entity);
        drop(known);
        self.failed.notify_one();
        self.answered.notify_one();
    }

    /// Returns `true` if there may be requests to repeat once a stanza of their domain arrives.
    pub fn has_outages(&self) -> bool {
        self.known().requests.outages.is_any()
    }

    /// Records that a stanza of an entity arrived, other than an error of an unreachable server: what was tried in vain
    /// at its domain is requested again.
    pub fn reach(&self, jid: &Jid) {
        self.known().reach(jid.domain().as_str());
        self.asked.notify_one();
        self.ping_queued.notify_one();
    }

    /// Waits until the pause of a domain is over that could not be reached. The presence of one of its entities is
    /// requested again, or one of its resources is queried again. Returns the domain.
    pub async fn next_attempt(&self) -> String {
        loop {
            let next = {
                let mut known = self.known();
                if known.is_connected { known.try_again() } else { Err(None) }
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
            let next = self.known().next_silent(Instant::now());
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

    /// Records a ping to an entity that has not answered a probe. Without an answer, the entity is probed again later.
    pub fn ping(&self, entity: &BareJid, number: u64) {
        let mut known = self.known();
        if let Some(watch) = known.wanted.get_mut(entity)
            && let Some(probe) = &mut watch.unanswered
        {
            probe.ping = Some(number);
            known.fail(entity);
        }
        drop(known);
        self.failed.notify_one();
    }

    /// Handles the answer to that ping. Returns the departure of the entity if it has sent nothing since the probe.
    pub(in crate::service) fn give_up(
        &self,
        entity: &BareJid,
        number: u64,
    ) -> Option<UnavailablePresence> {
        let mut known = self.known();
        let watch = known.wanted.get_mut(entity)?;
        watch.unanswered.take_if(|probe| probe.ping == Some(number))?;
        if known.available.contains_key(entity) {
            return None;
        }
        known.before.remove(entity);
        known.answer(entity);
        drop(known);
        self.answered.notify_one();
        Some(UnavailablePresence { jid: entity.clone().into(), is_last: true })
    }

    /// Returns `true` if the presence of an entity is requested, or will be.
    pub(in crate::service) fn is_watched(&self, entity: &BareJid) -> bool {
        self.known().wanted.contains_key(entity)
    }

    /// Records that a watched entity refuses its presence, or does not share it any more. Its presence is not requested
    /// again until a request of the entity needs it; after a restart, only if a node needs it now.
    pub(in crate::service) fn refuse(&self, entity: &BareJid, is_needed: bool) {
        let mut known = self.known();
        if known.wanted.contains_key(entity) {
            known.reset(entity);
            if known.refused_places.try_acquire(entity.domain().as_str()) {
                known.refused.insert(entity.clone());
                if is_needed {
                    known.unwritten_refusals.insert(entity.clone(), true);
                }
            }
            drop(known);
            self.refused.notify_one();
            self.answered.notify_one();
        }
    }

    /// Returns `true` if an entity refused its presence and has not asked since for what needs it.
    pub(in crate::service) fn has_refused(&self, entity: &BareJid) -> bool {
        self.known().refused.contains(entity)
    }

    /// Forgets an earlier refusal of presence by an entity whose request needs its presence. The entity may have missed
    /// events meanwhile.
    pub(in crate::service) fn forgive(&self, entity: &BareJid) {
        let is_forgiven = self.known().forget_refusal(entity);
        if is_forgiven {
            self.refused.notify_one();
            self.request(entity, None);
            self.known().note_missed(entity);
        }
    }

    /// Ends the watch of an erased entity, and forgets an earlier refusal of its presence.
    pub(in crate::service) fn forget(&self, entity: &BareJid) {
        let mut known = self.known();
        known.reset(entity);
        known.forget_refusal(entity);
        drop(known);
        self.refused.notify_one();
        self.answered.notify_one();
    }

    /// Those who refused before the service began.
    pub(in crate::service) fn load_refusals(&self, entities: Vec<BareJid>) {
        let mut known = self.known();
        for entity in entities {
            known.refused_places.acquire_over_quota(entity.domain().as_str());
            known.refused.insert(entity);
        }
    }

    /// Waits until somebody refused, or asked again; who, and whether it refuses.
    pub(in crate::service) async fn changed_refusals(&self) -> Vec<(BareJid, bool)> {
        loop {
            let changed = self.unwritten_refusals();
            if !changed.is_empty() {
                return changed;
            }
            self.refused.notified().await;
        }
    }

    /// The first of the refusals that the store does not have as they are.
    pub(in crate::service) fn unwritten_refusals(&self) -> Vec<(BareJid, bool)> {
        let known = self.known();
        let first = known.unwritten_refusals.iter().take(MAX_REFUSALS_WRITTEN);
        first.map(|(entity, refuses)| (entity.clone(), *refuses)).collect()
    }

    /// The store has these.
    pub(in crate::service) fn wrote_refusals(&self, written: &[(BareJid, bool)]) {
        let unwritten = &mut self.known().unwritten_refusals;
        for (entity, refuses) in written {
            if unwritten.get(entity) == Some(refuses) {
                unwritten.remove(entity);
            }
        }
    }

    /// Returns `true` if an entity lets the service have its presence; so what it sends with its bare JID is about all of its
    /// resources.
    #[must_use]
    pub fn is_given(&self, jid: &Jid) -> bool {
        self.known().wanted.get(&jid.to_bare()).is_some_and(|watch| watch.is_given)
    }

    /// Waits for somebody whose presence is wanted.
    pub(in crate::service) async fn next_request(&self) -> PresenceRequest {
        loop {
            {
                let mut known = self.known();
                while known.is_connected
                    && let Some(entity) = known.requests.pop()
                {
                    if let Some(watch) = known.wanted.get_mut(&entity)
                        && !watch.is_asked
                    {
                        (watch.is_asked, watch.has_failed) = (true, false);
                        watch.asked_at = Some(Instant::now());
                        let (is_probe, is_doubtful) = (watch.is_given, watch.is_doubtful);
                        if is_probe {
                            known.probe(entity.clone());
                            self.probed.notify_one();
                        }
                        return PresenceRequest { entity, is_probe, is_doubtful };
                    }
                }
            }
            self.asked.notified().await;
        }
    }

    /// Only pending events can need an entity's presence any more. Returns whether it is requested for these: of an entity
    /// that shares it, which no probe disturbs, or that is needed again. Another one is forgotten until an event needs it.
    pub(in crate::service) fn release(&self, entity: &BareJid) -> bool {
        let mut known = self.known();
        let Some(watch) = known.wanted.get_mut(entity) else { return false };
        if watch.is_given || !watch.is_doubtful {
            watch.is_released = watch.is_doubtful;
            return true;
        }
        known.reset(entity);
        drop(known);
        self.answered.notify_one();
        false
    }

    /// The presence of an entity matters at a node of this creator's account, if the node is known.
    fn request(&self, entity: &BareJid, creator: Option<&AccountKey>) {
        let mut known = self.known();
        let PresenceTable { wanted, requests, refused, .. } = &mut *known;
        if let Some(watch) = wanted.get_mut(entity) {
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
        if !known.wanted_places.try_acquire(domain) {
            known.drop_unanswered();
            if !known.wanted_places.try_acquire(domain) {
                return;
            }
        }
        let share = known.requests.join(creator);
        known.requests.push(entity, &share, false);
        // Events that were withheld from an entity without a watch are not recorded.
        let is_first = known.unread.is_empty() && known.dropped.is_none();
        let began = is_first.then(Instant::now);
        let watch = Watch { share, began, is_awaited: true, is_new: true, ..Watch::default() };
        known.wanted.insert(entity.clone(), watch);
        drop(known);
        self.asked.notify_one();
    }

    /// An event waits for the presence of an entity: it is asked before others, if it was not yet.
    fn ask_first(&self, entity: &BareJid) {
        let mut known = self.known();
        let PresenceTable { wanted, requests, .. } = &mut *known;
        if let Some(watch) = wanted.get(entity).filter(|watch| !watch.is_asked) {
            requests.push(entity, &watch.share, true);
        }
    }

    fn known(&self) -> MutexGuard<'_, PresenceTable> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PresenceTable {
    /// Returns `true` if events for a JID wait for presence or for the answer to a capability query.
    fn is_awaited(&mut self, jid: &Jid) -> bool {
        self.is_waiting_time()
            && !self.is_current(jid)
            && (self.wanted.get(&jid.to_bare()).is_some_and(Watch::is_awaited)
                || self.before_of(jid).any(|before| before.is_asked))
    }

    /// Returns `true` if a JID of which the presence may still arrive counts as available, in one of these states: it
    /// was before the interruption, or nothing is known of it. A server drops a superfluous event that is a headline; one
    /// that is not sent is lost.
    fn may_be_available(&mut self, jid: &Jid, shows: ShowSet) -> bool {
        let (entity, resource) = parts(jid);
        let watch = self.wanted.get(&entity);
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

    /// Returns `true` if events wait for presence on this connection; before the first one they do.
    fn is_waiting_time(&self) -> bool {
        self.answers_until.is_none_or(|until| Instant::now() < until)
    }

    /// Returns `true` if the presence of a resource arrived on this connection, so that answers to queries add nothing.
    fn is_current(&self, jid: &Jid) -> bool {
        let (entity, resource) = parts(jid);
        let is_there = |all: &BTreeMap<_, _>| all.contains_key(&resource);
        !jid.is_bare()
            && self.available.get(&entity).is_some_and(is_there)
            && !self.before.get(&entity).is_some_and(|all| all.contains_key(&resource))
    }

    /// Returns `true` if an entity shares its presence, and the server has not answered a probe on this connection.
    fn is_unanswered(&self, entity: &BareJid) -> bool {
        self.wanted.get(entity).is_some_and(|watch| watch.is_given && !watch.is_answered)
    }

    /// Returns `true` if events wait for the answer to the probe.
    fn is_probe_awaited(&self, entity: &BareJid) -> bool {
        let watch = self.wanted.get(entity);
        self.is_waiting_time() && watch.is_some_and(|watch| watch.is_given && watch.is_awaited())
    }

    /// The presence of an entity is here.
    fn answer(&mut self, entity: &BareJid) {
        if let Some(watch) = self.wanted.get_mut(entity) {
            (watch.is_awaited, watch.is_answered) = (false, true);
            watch.is_new = false;
        }
    }

    /// Requests the presence of an entity again, before others.
    fn ask_again(&mut self, entity: &BareJid) {
        if let Some(watch) = self.wanted.get_mut(entity) {
            watch.is_asked = false;
            self.requests.push(entity, &watch.share, true);
        }
    }

    /// Returns `true` if presence of this age proves that a resource of an entity was available before its watch began.
    fn was_there(&self, entity: &BareJid, age: Duration) -> bool {
        let began = self.wanted.get(entity).and_then(|watch| watch.began);
        began.is_some_and(|began| is_from_before(age, began))
    }

    /// Records that an entity may have missed an event.
    fn note_missed(&mut self, entity: &BareJid) {
        if let Some(watch) = self.wanted.get_mut(entity) {
            watch.began = None;
        }
    }

    /// Records that an entity sent something.
    fn note_activity(&mut self, entity: &BareJid) {
        if let Some(watch) = self.wanted.get_mut(entity) {
            watch.unanswered = None;
        }
    }

    /// Records a probe of an entity.
    fn probe(&mut self, entity: BareJid) {
        let at = Instant::now();
        if let Some(watch) = self.wanted.get_mut(&entity) {
            (watch.asked_at, watch.has_failed) = (Some(at), false);
            watch.unanswered = Some(Probe { at, ping: None });
            if !watch.is_probed && self.probed.len() < MAX_ENTITIES {
                watch.is_probed = true;
                self.probed.push_back((at, entity));
            }
        }
    }

    /// The next entity with an expired probe; or the time of the next expiry.
    fn next_silent(&mut self, now: Instant) -> Result<BareJid, Option<Instant>> {
        while let Some((at, _)) = self.probed.front() {
            if *at + SILENCE_TIMEOUT > now {
                return Err(Some(*at + SILENCE_TIMEOUT));
            }
            let Some((_, entity)) = self.probed.pop_front() else { break };
            let Some(watch) = self.wanted.get_mut(&entity) else { continue };
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

    /// Adds an available resource. Returns whether it is new; `None` at the limit.
    fn place(&mut self, entity: &BareJid, resource: &str, show: Show) -> Option<bool> {
        let is_wanted = self.wanted.contains_key(entity);
        let is_one_more = !self.available.contains_key(entity);
        let domain = entity.domain().as_str();
        if is_one_more && is_wanted {
            self.places.acquire_over_quota(domain);
        } else if is_one_more && !self.places.try_acquire(domain) {
            return None;
        }
        let max = if is_wanted { MAX_RESOURCES } else { MAX_UNWANTED };
        let resources = self.available.entry(entity.clone()).or_default();
        if resources.len() >= max && !resources.contains_key(resource) {
            return None;
        }
        Some(resources.insert(resource.to_owned(), show).is_none())
    }

    /// The presence of an entity is not wanted any more.
    fn reset(&mut self, entity: &BareJid) {
        if let Some(watch) = self.wanted.remove(entity) {
            self.requests.leave(&watch.share);
            self.requests.remove(entity);
            self.wanted_places.release(entity.domain().as_str());
            self.publishers.remove(entity);
        }
    }

    /// Returns `true` if an entity had refused its presence.
    fn forget_refusal(&mut self, entity: &BareJid) -> bool {
        let has_refused = self.refused.remove(entity);
        if has_refused {
            self.refused_places.release(entity.domain().as_str());
            self.unwritten_refusals.insert(entity.clone(), false);
        }
        has_refused
    }

    /// Forgets entities whose presence only events of the previous connection could need.
    fn forget_released(&mut self) {
        let released = self.wanted.iter().filter(|(_, watch)| watch.is_released);
        let released: Vec<_> = released.map(|(entity, _)| entity.clone()).collect();
        released.iter().for_each(|entity| self.reset(entity));
    }

    /// Makes room, now and then: who was asked for presence and did not give it may be asked again when it matters.
    fn drop_unanswered(&mut self) {
        if self.dropped.is_some_and(|before| before.elapsed() < EVICTION_INTERVAL) {
            return;
        }
        self.dropped = Some(Instant::now());
        let Self { wanted, requests, available: there, wanted_places, publishers, .. } = self;
        wanted.retain(|entity, watch| {
            let stays = !watch.is_released && (watch.is_given || there.contains_key(entity));
            if !stays {
                requests.leave(&watch.share);
                requests.remove(entity);
                wanted_places.release(entity.domain().as_str());
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
