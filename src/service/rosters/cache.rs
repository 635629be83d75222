//! The rosters of owners, as far as the server lets the service read them (XEP-0356).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jid::BareJid;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use gjallar_pubsub::{NodeId, Roster, Timestamp};

/// Maximum number of cached rosters; with one more, the oldest quarter is evicted.
const MAX_ROSTERS: usize = 1000;
/// Maximum number of nodes per owner that are processed as soon as the roster has changed; further ones are processed
/// by their timers.
const MAX_READERS: usize = 100;
/// How long a roster may take to come.
const ROSTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a connection began the server may take to let rosters be read. Servers say so at once.
const GRANT_TIMEOUT: Duration = Duration::from_secs(2);

/// Rosters that were read, and those that have to be.
#[derive(Debug, Default)]
pub struct RosterCache {
    known: Mutex<RosterTable>,
    asked: Notify,
    /// Nodes with a newly arrived roster.
    due: Mutex<HashSet<NodeId>>,
    became_due: Notify,
}

#[derive(Debug, Default)]
struct RosterTable {
    /// The domain whose users' rosters may be read.
    domain: Option<String>,
    /// Until when the server may still say so on this connection.
    grant_until: Option<Instant>,
    /// Ends when something else is known of that.
    grant: Answered,
    /// Each with when it was read; nothing where it could not be.
    rosters: HashMap<BareJid, (Timestamp, Option<Arc<Roster>>)>,
    unsent: VecDeque<BareJid>,
    /// Those that were asked for, and are not here yet.
    awaited: HashMap<BareJid, Awaited>,
    /// The nodes to process when a roster arrives, by roster owner.
    watching: HashMap<BareJid, HashSet<NodeId>>,
    /// The nodes to process when a roster has changed, by roster owner.
    readers: HashMap<BareJid, HashSet<NodeId>>,
}

/// A pending roster request.
#[derive(Debug, Default)]
struct Awaited {
    /// Time of the request; `None` before it is sent.
    asked: Option<Instant>,
    answered: Answered,
}

/// Closes when the answer arrives; one per roster, so that an answer wakes only its own waiters.
#[derive(Debug)]
struct Answered(watch::Sender<()>);

impl Default for Answered {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl RosterCache {
    /// A connection begins: nothing is known, and the server may say soon whose rosters may be read.
    pub fn await_grant(&self) {
        let grant_until = Some(Instant::now() + GRANT_TIMEOUT);
        self.begin(RosterTable { grant_until, ..RosterTable::default() });
    }

    /// From now on the rosters of the users of this domain may be read, or none.
    pub fn set_privilege(&self, domain: Option<String>) {
        self.begin(RosterTable { domain, ..RosterTable::default() });
    }

    fn begin(&self, known: RosterTable) {
        let before = {
            let mut current = self.known();
            let readers = mem::take(&mut current.readers);
            mem::replace(&mut *current, RosterTable { readers, ..known })
        };
        self.make_due(before.watching.into_values().flatten());
    }

    /// How many are kept.
    pub(in crate::service) fn len(&self) -> usize {
        self.known().rosters.len()
    }

    /// Returns `true` if the roster of an entity may.
    pub(in crate::service) fn may_read_roster(&self, owner: &BareJid) -> bool {
        let known = self.known();
        let is_granted = known.domain.as_deref() == Some(owner.domain().as_str());
        is_granted && owner.node().is_some()
    }

    /// Returns `true` if some may.
    #[must_use]
    pub fn has_privilege(&self) -> bool {
        self.known().domain.is_some()
    }

    /// The contacts of an owner, from a roster that is not older than that; nothing if none is here. `None` inside: it
    /// cannot be read.
    #[allow(clippy::option_option)]
    pub(in crate::service) fn cached(
        &self,
        owner: &BareJid,
        oldest: Timestamp,
    ) -> Option<Option<Arc<Roster>>> {
        self.known().lookup(owner, oldest)
    }

    /// As [`cached`](Self::cached); a roster that is not here is awaited, and then counts as one that cannot be read.
    pub(in crate::service) async fn read(
        &self,
        owner: &BareJid,
        oldest: Timestamp,
        now: Timestamp,
    ) -> Option<Arc<Roster>> {
        let deadline = Instant::now() + ROSTER_TIMEOUT;
        loop {
            if let Some(contacts) = self.cached(owner, oldest) {
                return contacts;
            }
            let Some((until, mut answered)) = self.ask(owner, oldest) else { continue };
            let until = until.map_or(deadline, |until| until.min(deadline));
            // A change is never sent: the channel closes.
            if timeout_at(until, answered.changed()).await.is_err() && Instant::now() >= deadline {
                // Nobody waits for it again before it is due again.
                self.on_result(owner, None, now);
                return None;
            }
        }
    }

    /// As [`cached`](Self::cached), for timer-driven operations, which do not wait. Requests a missing or outdated
    /// roster, and marks the node as [due](Self::take_due) when it arrives, or when one that another operation requested
    /// has changed. A slightly older roster is used until then.
    pub(in crate::service) fn watch(
        &self,
        node: &NodeId,
        owner: &BareJid,
        oldest: Timestamp,
    ) -> Option<Arc<Roster>> {
        let mut known = self.known();
        let is_missing = known.lookup(owner, oldest).is_none();
        // Without a permission, also before the first connection, the node is processed when there is one.
        if is_missing || known.domain.is_none() {
            known.watching.entry(owner.clone()).or_default().insert(node.clone());
        }
        if is_missing {
            known.ask(owner);
        }
        known.add_reader(owner, node);
        drop(known);
        self.asked.notify_one();
        let oldest = Timestamp(oldest.0.saturating_sub(ROSTER_TIMEOUT.as_millis() as u64));
        self.cached(owner, oldest).flatten()
    }

    /// The nodes to process because a roster arrived or became readable.
    pub(in crate::service) fn take_due(&self) -> HashSet<NodeId> {
        mem::take(&mut self.due())
    }

    /// Waits until there are some.
    pub(in crate::service) async fn became_due(&self) {
        self.became_due.notified().await;
    }

    fn make_due(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.due().extend(nodes);
        self.became_due.notify_one();
    }

    /// Asks for a roster that is not here, unless it is asked for already. Returns what closes when there is news of it,
    /// and until when that may be awaited at the most; nothing if it is here.
    fn ask(
        &self,
        owner: &BareJid,
        oldest: Timestamp,
    ) -> Option<(Option<Instant>, watch::Receiver<()>)> {
        let mut known = self.known();
        if known.lookup(owner, oldest).is_some() {
            return None;
        }
        known.ask(owner);
        let Some(awaited) = known.awaited.get(owner) else {
            return Some((known.grant_until, known.grant.0.subscribe()));
        };
        let answered = awaited.answered.0.subscribe();
        drop(known);
        self.asked.notify_one();
        Some((None, answered))
    }

    /// Waits for a user whose roster has to be read.
    pub async fn next_request(&self) -> BareJid {
        loop {
            {
                let mut known = self.known();
                while let Some(owner) = known.unsent.pop_front() {
                    // Nobody may wait for it any more.
                    if let Some(awaited) = known.awaited.get_mut(&owner) {
                        awaited.asked = Some(Instant::now());
                        return owner;
                    }
                }
            }
            self.asked.notified().await;
        }
    }

    /// Returns `true` if a user's roster was asked for, and is not here yet.
    #[must_use]
    pub fn awaits(&self, owner: &BareJid) -> bool {
        self.known().awaited.contains_key(owner)
    }

    /// A roster that was asked for; nothing if it cannot be read.
    pub(in crate::service) fn on_result(
        &self,
        owner: &BareJid,
        contacts: Option<Roster>,
        now: Timestamp,
    ) {
        let mut known = self.known();
        let Some(awaited) = known.awaited.remove(owner) else { return };
        let mut nodes = known.watching.remove(owner).unwrap_or_default();
        let contacts = contacts.map(Arc::new);
        let is_same = known.rosters.get(owner).is_some_and(|(_, before)| *before == contacts);
        if !is_same {
            nodes.extend(known.readers.remove(owner).unwrap_or_default());
        }
        if known.rosters.len() >= MAX_ROSTERS {
            known.evict();
        }
        known.rosters.insert(owner.clone(), (now, contacts));
        drop((known, awaited));
        self.make_due(nodes);
    }

    fn due(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, RosterTable> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RosterTable {
    /// Requests a roster, and repeats an unanswered request.
    fn ask(&mut self, owner: &BareJid) {
        if self.domain.is_none() {
            return;
        }
        let is_new = !self.awaited.contains_key(owner);
        let awaited = self.awaited.entry(owner.clone()).or_default();
        if is_new || awaited.asked.is_some_and(|at| at.elapsed() >= ROSTER_TIMEOUT) {
            awaited.asked = None;
            self.unsent.push_back(owner.clone());
        }
    }

    /// Evicts the oldest rosters.
    fn evict(&mut self) {
        let mut ages: Vec<_> =
            self.rosters.iter().map(|(owner, (at, _))| (*at, owner.clone())).collect();
        ages.sort_unstable();
        for (_, owner) in ages.iter().take(MAX_ROSTERS / 4) {
            self.rosters.remove(owner);
        }
    }

    /// Makes a node due when the roster of an owner has changed.
    fn add_reader(&mut self, owner: &BareJid, node: &NodeId) {
        let is_readable = self.domain.as_deref() == Some(owner.domain().as_str());
        let has_room = self.readers.len() < MAX_ROSTERS || self.readers.contains_key(owner);
        if is_readable && has_room {
            let readers = self.readers.entry(owner.clone()).or_default();
            if readers.len() < MAX_READERS {
                readers.insert(node.clone());
            }
        }
    }

    /// What is known of a roster, which may be that it cannot be read; nothing if it has to be awaited.
    #[allow(clippy::option_option)]
    fn lookup(&self, owner: &BareJid, oldest: Timestamp) -> Option<Option<Arc<Roster>>> {
        let Some(domain) = self.domain.as_deref() else {
            let may_be_granted = self.grant_until.is_some_and(|until| Instant::now() < until);
            return if may_be_granted { None } else { Some(None) };
        };
        if owner.domain().as_str() != domain || owner.node().is_none() {
            return Some(None);
        }
        let (at, contacts) = self.rosters.get(owner)?;
        (*at >= oldest).then(|| contacts.clone())
    }
}
