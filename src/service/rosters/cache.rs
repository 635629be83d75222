//! Cache of rosters that the server lets the service read (XEP-0356).

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

/// Maximum number of cached rosters. When one more is added, the oldest quarter is evicted.
const MAX_ROSTERS: usize = 1000;
/// Maximum number of nodes per owner that are processed as soon as the roster of the owner has changed. Further nodes
/// are processed at their next timer deadline.
const MAX_READERS: usize = 100;
/// Timeout of a roster request.
const ROSTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout, from the beginning of a connection, for the server to grant the permission to read rosters. Servers grant
/// it immediately.
const GRANT_TIMEOUT: Duration = Duration::from_secs(2);

/// Cached rosters and pending roster requests.
#[derive(Debug, Default)]
pub struct RosterCache {
    table: Mutex<RosterTable>,
    asked: Notify,
    /// Nodes to process because a roster arrived or became readable.
    due: Mutex<HashSet<NodeId>>,
    became_due: Notify,
}

#[derive(Debug, Default)]
struct RosterTable {
    /// Domain of the users with rosters that the service may read.
    domain: Option<String>,
    /// Time until which the server may still grant the permission to read rosters on this connection.
    grant_until: Option<Instant>,
    /// Channel that closes when the permission to read rosters changes.
    grant: Answered,
    /// Rosters with the time of the read; `None` for a roster that cannot be read.
    rosters: HashMap<BareJid, (Timestamp, Option<Arc<Roster>>)>,
    unsent: VecDeque<BareJid>,
    /// Pending requests by roster owner.
    awaited: HashMap<BareJid, Awaited>,
    /// Nodes to process when a roster arrives, by roster owner.
    watching: HashMap<BareJid, HashSet<NodeId>>,
    /// Nodes to process when a roster has changed, by roster owner.
    readers: HashMap<BareJid, HashSet<NodeId>>,
}

/// A pending roster request.
#[derive(Debug, Default)]
struct Awaited {
    /// Time of the request; `None` before it is sent.
    asked: Option<Instant>,
    answered: Answered,
}

/// Channel that closes when the answer arrives. Each roster has its own channel, so that an answer wakes only the
/// requests that wait for it.
#[derive(Debug)]
struct Answered(watch::Sender<()>);

impl Default for Answered {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl RosterCache {
    /// Empties the cache at the start of a connection. Reads of rosters then wait up to 2 s for the server to grant the
    /// permission.
    pub fn await_grant(&self) {
        let grant_until = Some(Instant::now() + GRANT_TIMEOUT);
        self.begin(RosterTable { grant_until, ..RosterTable::default() });
    }

    /// Sets the domain of the users with rosters that the service may read, and empties the cache. `None` means that
    /// the service may read no roster.
    pub fn set_privilege(&self, domain: Option<String>) {
        self.begin(RosterTable { domain, ..RosterTable::default() });
    }

    fn begin(&self, table: RosterTable) {
        let before = {
            let mut current = self.table();
            let readers = mem::take(&mut current.readers);
            mem::replace(&mut *current, RosterTable { readers, ..table })
        };
        self.make_due(before.watching.into_values().flatten());
    }

    /// Returns the number of cached rosters.
    pub(in crate::service) fn len(&self) -> usize {
        self.table().rosters.len()
    }

    /// Returns `true` if the service may read the roster of an entity.
    pub(in crate::service) fn may_read_roster(&self, owner: &BareJid) -> bool {
        let table = self.table();
        let is_granted = table.domain.as_deref() == Some(owner.domain().as_str());
        is_granted && owner.node().is_some()
    }

    /// Returns `true` if the service may read rosters.
    #[must_use]
    pub fn has_privilege(&self) -> bool {
        self.table().domain.is_some()
    }

    /// Returns the roster of an owner, if it is cached and was not read before `oldest`. The inner `None` means that
    /// the roster cannot be read.
    #[allow(clippy::option_option)]
    pub(in crate::service) fn cached(
        &self,
        owner: &BareJid,
        oldest: Timestamp,
    ) -> Option<Option<Arc<Roster>>> {
        self.table().lookup(owner, oldest)
    }

    /// Returns the roster of an owner that was not read before `oldest`; requests a missing roster and waits for it.
    /// `None` if the roster cannot be read, or has not arrived within 5 s.
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
            // Values are never sent: the channel closes.
            if timeout_at(until, answered.changed()).await.is_err() && Instant::now() >= deadline {
                // Further operations do not wait for this roster until it is outdated.
                self.on_result(owner, None, now);
                return None;
            }
        }
    }

    /// Returns the cached roster of an owner without waiting, for timer-driven operations; `None` if the roster is
    /// missing or cannot be read. Requests a roster that is missing or was read before `oldest`. Until the requested
    /// roster arrives, a roster that was read at most 5 s before `oldest` is returned. The node becomes
    /// [due](Self::take_due) when the requested roster arrives. The node also becomes due when another operation has
    /// requested the owner's roster and the roster has changed.
    pub(in crate::service) fn watch(
        &self,
        node: &NodeId,
        owner: &BareJid,
        oldest: Timestamp,
    ) -> Option<Arc<Roster>> {
        let mut table = self.table();
        let is_missing = table.lookup(owner, oldest).is_none();
        // Without a permission, also before the first connection, the node is processed once the permission is granted.
        if is_missing || table.domain.is_none() {
            table.watching.entry(owner.clone()).or_default().insert(node.clone());
        }
        if is_missing {
            table.ask(owner);
        }
        table.add_reader(owner, node);
        drop(table);
        self.asked.notify_one();
        let oldest = Timestamp(oldest.0.saturating_sub(ROSTER_TIMEOUT.as_millis() as u64));
        self.cached(owner, oldest).flatten()
    }

    /// Removes and returns the nodes to process because a roster arrived or became readable.
    pub(in crate::service) fn take_due(&self) -> HashSet<NodeId> {
        mem::take(&mut self.due())
    }

    /// Waits until there are nodes that must be processed.
    pub(in crate::service) async fn became_due(&self) {
        self.became_due.notified().await;
    }

    fn make_due(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.due().extend(nodes);
        self.became_due.notify_one();
    }

    /// Requests a missing roster, unless a request is pending. Returns a channel that closes when the answer arrives;
    /// `None` if the roster is cached. While the permission to read rosters is missing, the channel closes when the
    /// permission changes. In this case the function also returns the time until which the permission may still be
    /// granted.
    fn ask(
        &self,
        owner: &BareJid,
        oldest: Timestamp,
    ) -> Option<(Option<Instant>, watch::Receiver<()>)> {
        let mut table = self.table();
        if table.lookup(owner, oldest).is_some() {
            return None;
        }
        table.ask(owner);
        let Some(awaited) = table.awaited.get(owner) else {
            return Some((table.grant_until, table.grant.0.subscribe()));
        };
        let answered = awaited.answered.0.subscribe();
        drop(table);
        self.asked.notify_one();
        Some((None, answered))
    }

    /// Waits for the next roster request. Returns the owner of the roster to request.
    pub async fn next_request(&self) -> BareJid {
        loop {
            {
                let mut table = self.table();
                while let Some(owner) = table.unsent.pop_front() {
                    // The request may have ended meanwhile.
                    if let Some(awaited) = table.awaited.get_mut(&owner) {
                        awaited.asked = Some(Instant::now());
                        return owner;
                    }
                }
            }
            self.asked.notified().await;
        }
    }

    /// Returns `true` if a request for a user's roster is pending.
    #[must_use]
    pub fn awaits(&self, owner: &BareJid) -> bool {
        self.table().awaited.contains_key(owner)
    }

    /// Caches the roster of an answered request. `contacts` is `None` if the roster cannot be read. Marks the nodes that
    /// depend on the roster as [due](Self::take_due).
    pub(in crate::service) fn on_result(
        &self,
        owner: &BareJid,
        contacts: Option<Roster>,
        now: Timestamp,
    ) {
        let mut table = self.table();
        let Some(awaited) = table.awaited.remove(owner) else { return };
        let mut nodes = table.watching.remove(owner).unwrap_or_default();
        let contacts = contacts.map(Arc::new);
        let is_same = table.rosters.get(owner).is_some_and(|(_, before)| *before == contacts);
        if !is_same {
            nodes.extend(table.readers.remove(owner).unwrap_or_default());
        }
        if table.rosters.len() >= MAX_ROSTERS {
            table.evict();
        }
        table.rosters.insert(owner.clone(), (now, contacts));
        drop((table, awaited));
        self.make_due(nodes);
    }

    fn due(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, RosterTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Adds a node to process when the roster of an owner has changed.
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

    /// Returns a cached roster that was not read before `oldest`. The inner `None` means that the roster cannot be
    /// read, the outer `None` that it has to be requested.
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
